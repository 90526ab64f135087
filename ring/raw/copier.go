package raw

import (
	"context"
	"io"
	"sync"

	"github.com/dolly-img/dolly-img/cache/durable"
	"github.com/dolly-img/dolly-img/ring/leaf"
)

// copier copies leaves of the file that an update replaces to the part, where the two cannot share blocks. It copies a leaf when
// somebody reads it from the part, which the ring does of all leaves that are not brought, to hash them: so the sums are those of
// what the part has, whatever was written to the file meanwhile. The methods of nil do nothing.
type copier struct {
	t    *Target
	from io.ReaderAt
	to   *durable.Part
	size int64 // how many leading bytes the file has

	mu   sync.Mutex
	more *sync.Cond     // of mu: a leaf is no longer copied
	done []uint64       // which leaves the part has, a bit each
	busy map[int64]bool // those that are copied now
}

// newCopier makes a copier of what is behind the leading front bytes, which the part has.
func newCopier(t *Target, from io.ReaderAt, to *durable.Part, front, size int64) *copier {
	c := &copier{t: t, from: from, to: to, size: size, done: make([]uint64, (size+64*leaf.Size-1)/(64*leaf.Size)), busy: map[int64]bool{}}
	c.more = sync.NewCond(&c.mu)
	c.wrote(0, front)
	return c
}

func (c *copier) has(k int64) bool { return k >= int64(len(c.done))*64 || c.done[k/64]>>(k%64)&1 == 1 }

// wrote notes that the n bytes at off are or will be written, and that the leaves they are in are not to be copied any more.
func (c *copier) wrote(off, n int64) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for k := off / leaf.Size; k*leaf.Size < min(off+n, c.size); k++ {
		for c.busy[k] {
			c.more.Wait()
		}
		c.done[k/64] |= 1 << (k % 64)
	}
}

// ensure copies the leaf with the byte at off, unless the part has it.
func (c *copier) ensure(ctx context.Context, off int64) error {
	if c == nil || off >= c.size {
		return nil
	}
	k := off / leaf.Size
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.busy[k] {
		c.more.Wait()
	}
	if c.has(k) {
		return nil
	}
	c.busy[k] = true
	c.mu.Unlock()
	err := c.copy(ctx, k*leaf.Size)
	c.mu.Lock()
	delete(c.busy, k)
	if err == nil {
		c.done[k/64] |= 1 << (k % 64)
	}
	c.more.Broadcast()
	return err
}

// copy copies the leaf at off. Where the file has become shorter, zeros stay in its place.
func (c *copier) copy(ctx context.Context, off int64) error {
	end := min(off+leaf.Size, c.size)
	for buf := make([]byte, min(end-off, chunk)); off < end; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := c.from.ReadAt(buf[:min(end-off, int64(len(buf)))], off)
		if n == 0 && err == io.EOF {
			return nil
		}
		if n == 0 && err != nil {
			return c.t.fail("copy", err)
		}
		if !isZero(buf[:n]) {
			if err := c.to.Put(buf[:n], off); err != nil {
				return c.t.fail("copy", err)
			}
		}
		off += int64(n)
	}
	return nil
}

// rest copies what was neither written nor read.
func (c *copier) rest(ctx context.Context) error {
	if c == nil {
		return nil
	}
	for off := int64(0); off < c.size; off += leaf.Size {
		if err := c.ensure(ctx, off); err != nil {
			return err
		}
	}
	return nil
}

// front returns how many of the first n bytes the part has without a gap.
func (c *copier) front(n int64) int64 {
	if c == nil {
		return n
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for off := int64(0); off < min(n, c.size); off += leaf.Size {
		if !c.has(off / leaf.Size) {
			return off
		}
	}
	return n
}

// copyingReader reads a part that has what it was copied.
type copyingReader struct {
	io.ReadCloser
	ctx context.Context
	c   *copier
	off int64
}

func (r *copyingReader) Read(b []byte) (int, error) {
	if err := r.c.ensure(r.ctx, r.off); err != nil {
		return 0, err
	}
	n, err := r.ReadCloser.Read(b[:min(int64(len(b)), leaf.Size-r.off%leaf.Size)])
	r.off += int64(n)
	return n, err
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
