package raw

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/cache/durable"
	"github.com/dolly-img/dolly-img/ring/errkind"
	"github.com/dolly-img/dolly-img/ring/leaf"
)

// mediaType is that of a raw blob which does not travel in leaves: bytes of which nothing is known.
const mediaType = "application/octet-stream"

// LeavesFrom is how many bytes a file or a device has at least that travels in leaves, which nodes can compare: one core hashes a
// shorter one in no time.
const LeavesFrom = 64 << 20

// File is a regular file as a source of one blob.
type File struct {
	f    *os.File
	path string
	info fs.FileInfo // when it was opened

	endless bool          // its size is not where reading ends
	holes   bool          // it has holes that are skipped
	sum     digest.Digest // of what was read, once that is known
	grown   int64         // bytes that came behind what was read
	plain   plainSum
}

// OpenFile opens a regular file to be sent; it may be empty. It says what else
// path is: missing, a directory, a device. Where the size of the file is not where
// reading ends (see Unsized) it can be sent by Stream only.
func OpenFile(path string) (*File, error) {
	// Before the open, which on a pipe or a tape does more than to open.
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errkind.Errorf("input-missing", "input: %w", err)
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
	s := &File{f: f, path: path, holes: believed(f)}
	if err = s.probe(); err != nil {
		f.Close()
		return nil, err
	}
	return s, nil
}

// probe finds out whether the file ends where its size says. One whose size changes
// meanwhile is being written: it counts with a size that was true for a moment.
func (s *File) probe() error {
	for range 100 {
		info, err := s.f.Stat()
		if err != nil {
			return fmt.Errorf("input: %w", err)
		}
		if err := regular(s.path, info.Mode()); err != nil {
			return err
		}
		s.info, s.endless = info, false
		size := info.Size()
		last := size == 0
		if !last {
			if last, err = s.reads(size - 1); err != nil {
				return err
			}
		}
		beyond, err := s.reads(size)
		if err != nil {
			return err
		}
		if last && !beyond {
			return nil
		}
		s.endless = true
		if info, err = s.f.Stat(); err != nil {
			return fmt.Errorf("input: %w", err)
		}
		if info.Size() == size {
			return nil
		}
	}
	return errkind.Errorf("input-changes", "input %s changes its size all the time", s.path)
}

// reads says whether there is a byte at off.
func (s *File) reads(off int64) (bool, error) {
	n, err := s.f.ReadAt(make([]byte, 1), off)
	if err != nil && err != io.EOF {
		return false, errkind.Errorf("input-unreadable", "input: %w", err)
	}
	return n > 0, nil
}

// Unsized says that reading the file ends elsewhere than its size says, as with files of
// the kernel in /proc and /sys.
func (s *File) Unsized() bool { return s.endless }

// Stream is the file as a stream, read to wherever it ends, and spooled below dir as
// that of Stream. Closing it closes the file.
func (s *File) Stream(dir string) (*Spool, error) {
	spool, err := Stream(s.f, dir)
	if err == nil {
		spool.closes = s.f
	}
	return spool, err
}

func regular(path string, mode fs.FileMode) error {
	switch {
	case mode.IsRegular():
		return nil
	case mode.IsDir():
		return errkind.Errorf("input-directory", "input %s is a directory", path)
	case mode&fs.ModeDevice != 0:
		return errkind.Errorf("input-device", "input %s is a device that is read as a stream of characters", path)
	}
	return errkind.Errorf("input-stream", "input %s is not a regular file", path)
}

// Size is the length of the file in bytes when it was opened.
func (s *File) Size() int64 { return s.info.Size() }

// Mode is the permission bits of the file when it was opened.
func (s *File) Mode() fs.FileMode { return s.info.Mode().Perm() }

// ModTime is the modification time of the file when it was opened.
func (s *File) ModTime() time.Time { return s.info.ModTime() }

// leaves says whether the file travels in leaves.
func (s *File) leaves() bool { return s.info.Size() >= LeavesFrom }

// Blobs is the file: its size is known, its digest is not.
func (s *File) Blobs(context.Context) ([]v1.Descriptor, error) {
	d := Describe(s.path, s.info.Size())
	if !s.leaves() || !s.holes {
		return []v1.Descriptor{d}, nil
	}
	if n := dataIn(s.f, d.Size); n < d.Size {
		d.Annotations[leaf.AnnotationData] = strconv.FormatInt(n, 10)
	}
	return []v1.Descriptor{d}, nil
}

// Describe is the blob of size bytes that a file or an image is sent as, in leaves where it is long.
func Describe(path string, size int64) v1.Descriptor {
	d := v1.Descriptor{MediaType: mediaType, Size: size, Annotations: map[string]string{v1.AnnotationTitle: filepath.Base(path)}}
	if size >= LeavesFrom {
		d.MediaType = leaf.MediaType
	}
	return d
}

// ReadAt reads bytes of the file, as io.ReaderAt says.
func (s *File) ReadAt(b []byte, off int64) (int, error) { return s.f.ReadAt(b, off) }

// Open reads the file from off on. A file that became shorter is an
// io.ErrUnexpectedEOF, one that became longer ends at the size it had. The first Open
// begins to compute SHA256, if WantSHA256 was called.
func (s *File) Open(ctx context.Context, _ v1.Descriptor, off int64) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if off < 0 || off > s.info.Size() {
		return nil, fmt.Errorf("input %s: offset %d is outside its %d bytes", s.path, off, s.info.Size())
	}
	if s.leaves() && s.plain.wanted {
		s.plain.begin(s.f, s.info.Size())
	}
	part := durable.NewPart(durable.NewFile(s.f), s.info.Size())
	open := func(off int64) (io.ReadCloser, error) { return part.Open(ctx, off, nil) }
	if !s.leaves() {
		return open(off)
	}
	return openSoon(s.f, s.info.Size(), off, s.holes, open)
}

// WantSHA256 has SHA256 computed also for a file in leaves, by a core of its own. It is called before Open.
func (s *File) WantSHA256() { s.plain.wanted = true }

// SHA256 returns the digest of what was read as sha256sum has it, once Unchanged was called, or "" where it could not
// be computed, nobody wanted it, or the file changed meanwhile. For a file in leaves it is computed beside the transfer,
// and SHA256 waits for that, but not longer than ctx; late is called before it waits.
func (s *File) SHA256(ctx context.Context, late func()) digest.Digest {
	if !s.leaves() {
		return s.sum
	}
	sum := s.plain.wait(ctx, late)
	if sum == "" || s.Unchanged(ctx) != nil {
		return ""
	}
	return sum
}

// Sums is told the digest of what was read.
func (s *File) Sums(read []digest.Digest) { s.sum = read[0] }

// Grown is how many bytes Unchanged has found behind those that were read.
func (s *File) Grown() int64 { return s.grown }

// Unchanged compares size, times and inode with those at OpenFile, of the open
// file and of what its path names now. A file that became longer is read again: a log
// that was appended to is unchanged where it was read. One that was empty is not: who
// writes it had only begun.
func (s *File) Unchanged(ctx context.Context) error {
	open, err := s.f.Stat()
	if err != nil {
		return fmt.Errorf("input: %w", err)
	}
	named, err := os.Stat(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return errkind.Errorf("input-changes", "input %s was removed while it was read", s.path)
	}
	if err != nil {
		return fmt.Errorf("input: %w", err)
	}
	changed := errkind.Errorf("input-changes", "input %s changed while it was read", s.path)
	if unchanged(s.info, open) && unchanged(s.info, named) {
		return nil
	}
	if !os.SameFile(open, named) || !os.SameFile(s.info, open) || s.info.Size() == 0 || open.Size() <= s.info.Size() || s.sum == "" {
		return changed
	}
	again, err := s.Digest(ctx)
	if err != nil {
		return fmt.Errorf("input %s: %w", s.path, err)
	}
	if again != s.sum {
		return changed
	}
	s.grown = open.Size() - s.info.Size()
	return nil
}

func stat(info fs.FileInfo) *syscall.Stat_t { return info.Sys().(*syscall.Stat_t) }

// Digest reads the file, and returns the digest that a transfer of it has.
func (s *File) Digest(ctx context.Context) (digest.Digest, error) {
	if s.leaves() {
		return leaf.Of(ctx, s.f, s.info.Size())
	}
	return digest.FromReader(&endedReader{ctx, io.NewSectionReader(s.f, 0, s.info.Size())})
}

func unchanged(a, b fs.FileInfo) bool {
	x, y := stat(a), stat(b)
	return x.Dev == y.Dev && x.Ino == y.Ino && x.Size == y.Size && x.Mtim == y.Mtim && x.Ctim == y.Ctim
}

// Close ends the source and every reader of it.
func (s *File) Close() error {
	s.plain.end()
	return s.f.Close()
}
