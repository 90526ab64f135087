package device

import (
	"context"
	"errors"
	"fmt"
	"io"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Open reads what is stored of the blob from off on, also while more is written.
func (t *Target) Open(ctx context.Context, _ v1.Descriptor, off int64) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.first == nil || t.closed || off < 0 || off > t.stored && !t.before.reading && !t.holds(down(off, t.leaf), off+1) {
		return nil, fmt.Errorf("device %s: byte %d is not stored", t.d, off)
	}
	return &reader{ctx: ctx, t: t, off: off}, nil
}

// image reads the whole blob, for what is composed from it.
type image struct {
	t *Target
	r *reader
}

func (i *image) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off > i.t.size {
		return 0, errors.New("device: outside of the image")
	}
	i.r.off = off
	n, err := io.ReadFull(i.r, p)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}

// reader reads what is stored.
type reader struct {
	ctx context.Context
	t   *Target
	off int64
	// buf has bytes of the device from at on; nil: none.
	buf, memory []byte
	at          int64
}

func (r *reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil || len(p) == 0 {
		return 0, err
	}
	if k := r.off - r.at; r.buf == nil || k < 0 || k >= int64(len(r.buf)) {
		n, err := r.fill(p)
		r.off += int64(n)
		if n > 0 || err != nil {
			return n, err
		}
	}
	n := copy(p, r.buf[r.off-r.at:])
	r.off += int64(n)
	return n, nil
}

// fill copies what is stored next into p if that is in memory, or reads it into p if p is fit for that, and else reads it into buf
// and returns 0.
func (r *reader) fill(p []byte) (int, error) {
	t := r.t
	t.mu.Lock()
	end := t.stored
	if r.off >= end && r.off < t.size && (t.before.reading || t.holds(down(r.off, t.leaf), r.off+1)) {
		end = min(down(r.off, t.leaf)+t.leaf, t.size)
	}
	if r.off >= end {
		t.mu.Unlock()
		return 0, io.EOF
	}
	n, memory := t.memory(r.off, end-r.off)
	if memory != nil {
		n := copy(p, memory)
		t.mu.Unlock()
		return n, nil
	}
	n, flying := t.flying(r.off, n)
	if flying != nil {
		n := copy(p, flying.data[min(int64(len(flying.data)), r.off-flying.off):]) // of zeros none
		if flying.data == nil {
			n = len(p)
		}
		n = int(min(int64(n), flying.end()-r.off, end-r.off))
		if flying.data == nil {
			clear(p[:n])
		}
		t.mu.Unlock()
		return n, nil
	}
	t.mu.Unlock()
	if k := down(min(n, int64(len(p))), page); k >= readSize && r.off%page == 0 && isAligned(p) {
		p = p[:min(k, chunkSize)]
		if _, err := t.d.ReadAt(p, r.off); err != nil {
			return 0, t.fail(fmt.Sprintf("read at byte %d", r.off), err)
		}
		return len(p), nil
	}
	return 0, r.direct(n)
}

// flying returns the chunk with the byte at off that is not known to be on the device, or how many of n bytes there are
// before the next one.
func (t *Target) flying(off, n int64) (int64, *chunk) {
	cut := func(c *chunk) *chunk {
		if c.off <= off && off < c.end() {
			return c
		}
		if c.off > off {
			n = min(n, c.off-off)
		}
		return nil
	}
	if t.cur.data != nil {
		if c := cut(&t.cur); c != nil {
			return 0, c
		}
	}
	for _, c := range t.flight {
		if c := cut(c); c != nil {
			return 0, c
		}
	}
	return n, nil
}

// direct reads up to n bytes at off from the device.
func (r *reader) direct(n int64) error {
	if r.memory == nil {
		r.memory = reads.Get().(*[readSize]byte)[:]
	}
	sector := r.t.d.Sector()
	r.at = down(r.off, sector)
	r.buf = nil
	whole := min(up(r.off+n, sector)-r.at, readSize)
	b := r.memory[:whole]
	if _, err := r.t.d.ReadAt(b, r.at); err != nil {
		return r.t.fail(fmt.Sprintf("read at byte %d", r.at), err)
	}
	r.buf = b[:min(whole, r.off+n-r.at)]
	return nil
}

func (r *reader) Close() error {
	if r.memory != nil {
		reads.Put((*[readSize]byte)(r.memory))
		r.memory, r.buf = nil, nil
	}
	return nil
}
