package raw

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// mediaType is that of every raw blob: bytes of which nothing is known.
const mediaType = "application/octet-stream"

// File is a regular file as a source of one blob.
type File struct {
	f    *os.File
	path string
	info fs.FileInfo // when it was opened
}

// OpenFile opens a regular file to be sent; it may be empty. It says what else
// path is: missing, a directory, a device.
func OpenFile(path string) (*File, error) {
	// Before the open, which on a pipe or a tape does more than to open.
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, hint("is the path right? it is one of this machine, where the command runs", "input: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("input: %w", err)
	}
	if err := regular(path, info.Mode()); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("input: %w", err)
	}
	if info, err = f.Stat(); err == nil {
		err = regular(path, info.Mode())
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &File{f, path, info}, nil
}

func regular(path string, mode fs.FileMode) error {
	switch {
	case mode.IsRegular():
		return nil
	case mode.IsDir():
		return hint("name a file; to send a directory pack it first", "input %s is a directory", path)
	case mode&fs.ModeDevice != 0:
		return hint("copy the device to a file first", "input %s is a device, which this version does not read", path)
	}
	return hint("to read a stream use --input -", "input %s is not a regular file", path)
}

// Size is the length of the file in bytes when it was opened.
func (s *File) Size() int64 { return s.info.Size() }

// ModTime is the modification time of the file when it was opened.
func (s *File) ModTime() time.Time { return s.info.ModTime() }

// Blobs is the file: its size is known, its digest is not.
func (s *File) Blobs(context.Context) ([]v1.Descriptor, error) {
	return []v1.Descriptor{{
		MediaType:   mediaType,
		Size:        s.info.Size(),
		Annotations: map[string]string{v1.AnnotationTitle: filepath.Base(s.path)},
	}}, nil
}

// Open reads the file from off on. A file that became shorter is an
// io.ErrUnexpectedEOF, one that became longer ends at the size it had.
func (s *File) Open(ctx context.Context, _ v1.Descriptor, off int64) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if off < 0 || off > s.info.Size() {
		return nil, fmt.Errorf("input %s: offset %d is outside its %d bytes", s.path, off, s.info.Size())
	}
	p := &part{f: s.f}
	p.written.Store(s.info.Size())
	return p.open(ctx, off)
}

// Unchanged compares size, times and inode with those at OpenFile, of the open
// file and of what its path names now.
func (s *File) Unchanged(context.Context) error {
	open, err := s.f.Stat()
	if err != nil {
		return fmt.Errorf("input: %w", err)
	}
	named, err := os.Stat(s.path)
	if err != nil {
		return fmt.Errorf("input: %w", err)
	}
	for _, now := range []fs.FileInfo{open, named} {
		if !unchanged(s.info, now) {
			return hint("send it again when nothing writes to it", "input %s changed while it was read", s.path)
		}
	}
	return nil
}

func unchanged(a, b fs.FileInfo) bool {
	x, y := a.Sys().(*syscall.Stat_t), b.Sys().(*syscall.Stat_t)
	return x.Dev == y.Dev && x.Ino == y.Ino && x.Size == y.Size && x.Mtim == y.Mtim && x.Ctim == y.Ctim
}

// Close ends the source and every reader of it.
func (s *File) Close() error { return s.f.Close() }
