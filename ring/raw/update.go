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

// An update compares the file that it will replace where it is. If nothing differs, the file stays, and nothing is written. Else
// the part begins as a copy of the file, of which the blob brings what differs, and the file itself stays as it is until
// Publish.
//
// Others may write to the file meanwhile. It stays, or its sums of the comparison are believed of a copy, only if its times
// are what they were before the first byte was read.

// Compare opens the file that is there, for Open to read it, and returns how many bytes of it may be those of d. What a transfer
// before has left is given up. See ring.Comparer.
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
	s := &existing{f: f, begun: true, update: true}
	// From now on also a write through a mapping changes its times.
	if err = f.Sync(); err == nil {
		s.info, err = f.Stat()
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		f.Close()
		return 0, t.fail("compare", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.old != nil {
		t.old.f.Close()
	}
	t.old = s
	s.equal.Store(min(s.info.Size(), d.Size))
	return s.equal.Load(), nil
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

// openCompared reads the file that an update compares.
func (t *Target) openCompared(ctx context.Context, s *existing, off int64) (io.ReadCloser, error) {
	return io.NopCloser(&endedReader{ctx, io.NewSectionReader(s.f, off, s.equal.Load()-off)}), nil
}

// holdOld returns the file that an update compares if it stays as it is: it was compared to its end, nobody has written to it
// since, and what it lacks of what was asked for can be given to it. mu is held.
func (t *Target) holdOld(d v1.Descriptor, off int64) *existing {
	s := t.old
	t.existing = nil
	if t.part == nil && off == d.Size && s.info.Size() == d.Size && t.ownable(s.info) && t.dressable(s.info) == nil && t.changed(s) == nil {
		t.existing, s.sure = s, true
	}
	return t.existing
}

// ownable says whether a file has the owner that one has which we make, or gets the one that was asked for.
func (t *Target) ownable(info fs.FileInfo) bool {
	return t.o.Owner != nil || int(stat(info).Uid) == t.uid
}

// Same reports whether what an update has compared is sure to be what is in its place now; see ring.Comparer.
func (t *Target) Same(v1.Descriptor) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.old != nil && t.old.sure
}

// beginOld makes the part a copy of the file that an update compares, which shares its blocks where the file system can.
func (t *Target) beginOld(ctx context.Context, d v1.Descriptor) error {
	t.mu.Lock()
	s, begun := t.old, t.part != nil
	t.mu.Unlock()
	if s == nil || begun {
		return nil
	}
	size := min(s.info.Size(), d.Size)
	p, err := t.begin(ctx, 0)
	if err != nil || size == 0 {
		return err
	}
	cloned, err := t.copyOld(ctx, p, s.f, size)
	if err != nil {
		return errors.Join(err, t.drop())
	}
	p.Ahead(size)
	t.mu.Lock()
	defer t.mu.Unlock()
	s.sure = cloned && t.changed(s) == nil
	return nil
}

// copyOld fills the empty p with the first size bytes of f, and says whether it did so in one step.
func (t *Target) copyOld(ctx context.Context, p *durable.Part, f durable.File, size int64) (cloned bool, err error) {
	if p.Clone(f) == nil {
		if err := p.File.Truncate(size); err != nil {
			return true, t.fail("copy", err)
		}
		return true, nil
	}
	if err := p.File.Truncate(0); err != nil {
		return false, t.fail("copy", err)
	}
	for off, buf := int64(0), make([]byte, min(size, chunk)); off < size; {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		n, err := f.ReadAt(buf[:min(size-off, int64(len(buf)))], off)
		if n == 0 && err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF // it became shorter
			}
			return false, t.fail("copy", err)
		}
		if isZero(buf[:n]) {
			err = p.Zero(off, int64(n))
		} else {
			_, err = p.WriteAt(buf[:n], off)
		}
		if err != nil {
			return false, t.fail("copy", err)
		}
		off += int64(n)
	}
	return false, nil
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
