package raw

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

// MaxParts is how many parts a file may be split in: each of them is open during a transfer.
const MaxParts = 1 << 10

// Parts is a file that is split in parts, PATH_0, PATH_1 and so on, as a source of one blob.
type Parts struct {
	path  string
	files []*File
	size  int64
}

// PartName returns the path of a part of a file that is split.
func PartName(path string, n int) string { return fmt.Sprintf("%s_%d", path, n) }

// OpenParts opens the parts of the file at path, up to the last one that is there.
func OpenParts(path string) (*Parts, error) {
	s := &Parts{path: path}
	for n := 0; ; n++ {
		if _, err := os.Stat(PartName(path, n)); n > 0 && errors.Is(err, fs.ErrNotExist) {
			return s, nil
		}
		err := s.add(PartName(path, n))
		if err == nil && n >= MaxParts {
			err = fmt.Errorf("input %s: more than %d parts", path, MaxParts)
		}
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
}

func (s *Parts) add(part string) error {
	f, err := OpenFile(part)
	if err != nil {
		return err
	}
	s.files = append(s.files, f)
	if f.Unsized() {
		return errkind.Errorf("input-stream", "input %s is not as long as its size says, and cannot be a part", part)
	}
	s.size += f.Size()
	return nil
}

// Size is the length of all parts together, in bytes.
func (s *Parts) Size() int64 { return s.size }

// Mode is the permission bits of the first part.
func (s *Parts) Mode() fs.FileMode { return s.files[0].Mode() }

// ModTime is that of the part that was changed last.
func (s *Parts) ModTime() (last time.Time) {
	for _, f := range s.files {
		if t := f.ModTime(); t.After(last) {
			last = t
		}
	}
	return last
}

// Blobs is all parts as one, whose size is known and whose digest is not. It does not travel in leaves.
func (s *Parts) Blobs(context.Context) ([]v1.Descriptor, error) {
	d := Describe(s.path, s.size)
	d.MediaType = mediaType
	return []v1.Descriptor{d}, nil
}

// ReadAt reads bytes of all parts, as io.ReaderAt says.
func (s *Parts) ReadAt(b []byte, off int64) (n int, err error) {
	for _, f := range s.files {
		if off >= f.Size() {
			off -= f.Size()
			continue
		}
		m, err := f.ReadAt(b[n:min(int64(len(b)), int64(n)+f.Size()-off)], off)
		if n += m; n == len(b) || err != nil && err != io.EOF {
			return n, err
		}
		if m < int(f.Size()-off) {
			return n, io.ErrUnexpectedEOF // it became shorter
		}
		off = 0
	}
	if n < len(b) {
		err = io.EOF
	}
	return n, err
}

// Open reads the parts from off on. A part that became shorter is an io.ErrUnexpectedEOF.
func (s *Parts) Open(ctx context.Context, _ v1.Descriptor, off int64) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if off < 0 || off > s.size {
		return nil, fmt.Errorf("input %s: offset %d is outside its %d bytes", s.path, off, s.size)
	}
	return io.NopCloser(&endedReader{ctx, io.NewSectionReader(s, off, s.size-off)}), nil
}

// Unchanged returns an error unless each part is what it was when it was opened, and no further one is there.
func (s *Parts) Unchanged(ctx context.Context) error {
	for _, f := range s.files {
		if err := f.Unchanged(ctx); err != nil {
			return err
		}
	}
	next := PartName(s.path, len(s.files))
	if _, err := os.Stat(next); !errors.Is(err, fs.ErrNotExist) {
		return errkind.Errorf("input-changes", "input %s was made while the parts before it were read", next)
	}
	return nil
}

// Close ends the source and every reader of it.
func (s *Parts) Close() error {
	var errs []error
	for _, f := range s.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}
