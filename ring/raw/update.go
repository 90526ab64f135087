package raw

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/cache/durable"
)

// An update begins with a copy of the file that it will replace, of which the blob brings what differs. The file itself stays
// as it is until Publish.

// Compare makes the part a copy of the file that is there, which shares its blocks where the file system can, and returns how many
// bytes of it may be those of d. What a transfer before has left is given up. See ring.Comparer.
func (t *Target) Compare(ctx context.Context, d v1.Descriptor) (size int64, err error) {
	t.mu.Lock()
	same := t.existing != nil
	t.mu.Unlock()
	if same || !t.o.Overwrite {
		return 0, nil
	}
	f, err := t.openOld()
	if f == nil || err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, t.fail("compare", err)
	}
	size = min(info.Size(), d.Size)
	if size == 0 {
		return 0, nil
	}
	p, err := t.begin(ctx, 0)
	if err != nil {
		return 0, err
	}
	if err := t.copyOld(ctx, p, f, size); err != nil {
		return 0, errors.Join(err, t.drop())
	}
	p.Ahead(size)
	return size, nil
}

// openOld opens the file that will be replaced, or returns nil where there is none that can be read.
func (t *Target) openOld() (durable.File, error) {
	info, err := t.look(t.name)
	if err != nil || !info.Mode().IsRegular() {
		return nil, nil // Offer has said what is wrong
	}
	f, err := t.fs.OpenFile(t.name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrPermission), errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, t.fail("compare", err)
	}
	now, err := f.Stat()
	if err != nil || !now.Mode().IsRegular() {
		f.Close()
		return nil, err
	}
	return f, nil
}

// copyOld fills the empty p with the first size bytes of f.
func (t *Target) copyOld(ctx context.Context, p *durable.Part, f durable.File, size int64) error {
	if p.Clone(f) == nil {
		if err := p.File.Truncate(size); err != nil {
			return t.fail("copy", err)
		}
		return nil
	}
	if err := p.File.Truncate(0); err != nil {
		return t.fail("copy", err)
	}
	for off, buf := int64(0), make([]byte, min(size, chunk)); off < size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := f.ReadAt(buf[:min(size-off, int64(len(buf)))], off)
		if n == 0 && err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF // it became shorter
			}
			return t.fail("copy", err)
		}
		if isZero(buf[:n]) {
			err = p.Zero(off, int64(n))
		} else {
			_, err = p.WriteAt(buf[:n], off)
		}
		if err != nil {
			return t.fail("copy", err)
		}
		off += int64(n)
	}
	return nil
}

// isZero reports whether all of b is zero.
func isZero(b []byte) bool {
	for len(b) > len(zeros) {
		if [len(zeros)]byte(b) != zeros {
			return false
		}
		b = b[len(zeros):]
	}
	return string(b) == string(zeros[:len(b)])
}

var zeros [4096]byte
