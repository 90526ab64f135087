package device

import (
	"context"
	"fmt"
	"sync"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// chunkSize is how much is written at once, in bytes, and inFlight how many of these.
	chunkSize = 4 << 20
	inFlight  = 2
	// readSize is how much is read at once, in bytes.
	readSize = 1 << 20
	// zeroSize is how much is zeroed at once, in bytes: the device does nothing else meanwhile.
	zeroSize = 64 << 20
	// worthZeroing is how many zeros are made by the device. Fewer of them are written.
	worthZeroing = 64 << 10
)

var chunks = sync.Pool{New: func() any { return (*[chunkSize]byte)(aligned(chunkSize)) }}

// newChunk returns chunkSize bytes of any content, which freeChunk takes back.
func newChunk() []byte { return chunks.Get().(*[chunkSize]byte)[:] }

var reads = sync.Pool{New: func() any { return (*[readSize]byte)(aligned(readSize)) }}

func freeChunk(b []byte) { chunks.Put((*[chunkSize]byte)(b[:chunkSize])) }

// chunk is bytes on their way to the device.
type chunk struct {
	off  int64
	n    int64
	data []byte // nil: zeros
}

func (c *chunk) end() int64 { return c.off + c.n }

// writer is the Writer of the blob.
type writer struct {
	t   *Target
	off int64
}

// Write stores what comes next.
func (w *writer) Write(p []byte) (int, error) { return w.WriteAt(p, w.off) }

// WriteAt stores p at off.
func (w *writer) WriteAt(p []byte, off int64) (int, error) {
	if err := w.t.place(p, off, int64(len(p))); err != nil {
		return 0, err
	}
	w.off = off + int64(len(p))
	return len(p), nil
}

// Zero makes n bytes from off on read as zeros.
func (w *writer) Zero(off, n int64) error {
	if err := w.t.place(nil, off, n); err != nil {
		return err
	}
	w.off = off + n
	return nil
}

// Good takes notice of what is right, for the journal; see ring.Cautious.
func (w *writer) Good(off int64) { w.t.isGood(off) }

// Flush waits until the device has what was written; see ring.Flusher.
func (w *writer) Flush(ctx context.Context, done func(bytes int64)) error {
	t := w.t
	if err := t.drain(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := t.flush(); err != nil {
		return err
	}
	done(t.size)
	return nil
}

// Commit checks that all bytes came.
func (w *writer) Commit(ctx context.Context, final v1.Descriptor) error {
	t := w.t
	if err := ctx.Err(); err != nil {
		return err
	}
	t.mu.Lock()
	stored := t.stored
	t.mu.Unlock()
	if final.Size != t.size || stored < t.size && !t.holds(stored, t.size) {
		return fmt.Errorf("device %s: %d bytes written, %d expected", t.d, stored, final.Size)
	}
	if err := t.drain(); err != nil {
		return err
	}
	return t.flush()
}

// Abort keeps the first bytes, from which Begin goes on.
func (w *writer) Abort(keep int64) error {
	t := w.t
	err := t.drain()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stored = min(t.stored, keep)
	t.good = min(t.good, keep)
	return err
}

// place stores n bytes at off: p, or zeros where p is nil.
func (t *Target) place(p []byte, off, n int64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if off < t.stored || n < 0 || off+n > t.size || off > t.stored && !t.holds(t.stored, off) {
		return fmt.Errorf("device %s: bytes %d to %d do not follow byte %d of %d", t.d, off, off+n, t.stored, t.size)
	}
	for n > 0 {
		if t.err != nil {
			return t.err
		}
		k, memory := t.memory(off, n)
		forget(t.before.held, off, k)
		switch {
		case memory != nil && p == nil:
			clear(memory)
		case memory != nil:
			copy(memory, p)
		default:
			var err error
			if k, err = t.outside(p, off, k); err != nil {
				return err
			}
		}
		if p != nil {
			p = p[k:]
		}
		off, n = off+k, n-k
		t.stored = off
	}
	return nil
}

// memory returns how many of n bytes at off lie together, and where, if that is in memory.
func (t *Target) memory(off, n int64) (int64, []byte) {
	switch {
	case off < t.leaf:
		n = min(n, t.leaf-off)
		return n, t.first[off : off+n]
	case off >= t.tailAt:
		return n, t.tail[off-t.tailAt : off-t.tailAt+n]
	}
	return min(n, t.tailAt-off), nil
}

// outside stores up to n bytes that go to the device, and returns how many.
func (t *Target) outside(p []byte, off, n int64) (int64, error) {
	if err := t.beginLocked(); err != nil {
		return 0, err
	}
	forget(t.noted, off, n)
	c, sector := &t.cur, t.d.Sector()
	if c.data != nil && c.end() != off {
		if err := t.submitCur(); err != nil {
			return 0, err
		}
	}
	if p == nil && n >= worthZeroing && off%sector == 0 {
		if err := t.submitCur(); err != nil {
			return 0, err
		}
		n = min(down(n, sector), zeroSize)
		return n, t.submit(chunk{off: off, n: n})
	}
	if c.data == nil {
		if err := t.startChunk(off); err != nil {
			return 0, err
		}
	}
	unit := min(chunkSize, t.leaf)
	n = min(n, down(c.off, unit)+unit-c.end())
	if p == nil && n >= sector && off%sector != 0 {
		n = up(off, sector) - off // up to where the device can zero
	}
	if p == nil {
		clear(c.data[c.n : c.n+n])
	} else {
		copy(c.data[c.n:], p[:n])
	}
	c.n += n
	if c.end()%unit == 0 {
		return n, t.submitCur()
	}
	return n, nil
}

// startChunk begins to fill a chunk at off. What lies in the same sector before it is read again.
func (t *Target) startChunk(off int64) error {
	at := down(off, t.d.Sector())
	buf := newChunk()
	if at < off {
		if _, err := t.d.ReadAt(buf[:t.d.Sector()], at); err != nil {
			return t.fail(fmt.Sprintf("read at byte %d", at), err)
		}
	}
	t.cur = chunk{at, off - at, buf}
	return nil
}

// submitCur writes the chunk that is being filled. A part of a sector at its end is padded with zeros.
func (t *Target) submitCur() error {
	c := t.cur
	if c.data == nil {
		return nil
	}
	t.cur = chunk{}
	n := up(c.n, t.d.Sector())
	clear(c.data[c.n:n])
	c.n = n
	return t.submit(c)
}

// submit has c written by another goroutine, once there is a place. It gives mu back while it waits.
func (t *Target) submit(c chunk) error {
	t.flight = append(t.flight, &c)
	t.mu.Unlock()
	t.depth <- struct{}{}
	t.mu.Lock()
	go func() {
		err := t.write(&c)
		t.mu.Lock()
		defer t.mu.Unlock()
		if err != nil && t.err == nil {
			t.err = err
		}
		t.landed(&c)
		<-t.depth
	}()
	return t.err
}

// write writes a chunk to the device.
func (t *Target) write(c *chunk) error {
	if c.data == nil {
		if err := t.d.Zero(c.off, c.n); err != nil {
			return t.fail(fmt.Sprintf("zero %d bytes at byte %d", c.n, c.off), err)
		}
		return nil
	}
	if _, err := t.d.WriteAt(c.data[:c.n], c.off); err != nil {
		return t.fail(fmt.Sprintf("write at byte %d", c.off), err)
	}
	return nil
}

// landed takes a chunk out of flight. mu is held.
func (t *Target) landed(c *chunk) {
	for i, o := range t.flight {
		if o == c {
			t.flight = append(t.flight[:i], t.flight[i+1:]...)
			break
		}
	}
	if c.data != nil {
		freeChunk(c.data)
	}
	t.idle.Broadcast()
}

// drain writes what is being filled, and waits for all that is in flight.
func (t *Target) drain() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.submitCur(); err != nil {
		t.settle()
		return err
	}
	t.settle()
	return t.err
}

// settle waits until nothing is in flight, and nobody writes the journal. mu is held.
func (t *Target) settle() {
	for len(t.flight) > 0 || t.journal.busy {
		t.idle.Wait()
	}
}

// flush has the device empty its cache. Nothing of what is stored by then can be lost.
func (t *Target) flush() error {
	if err := t.d.Flush(); err != nil {
		return t.fail("flush", err)
	}
	return nil
}
