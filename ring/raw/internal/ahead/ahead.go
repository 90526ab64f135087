// Package ahead reads a source before its bytes are asked for, so that reading and expanding run beside what is done with
// the bytes.
package ahead

import (
	"context"
	"errors"
	"io"
	"unsafe"
)

// Align is the alignment in bytes of the buffers that a source is read into. O_DIRECT wants that of a logical sector
// at most, and no disk has larger ones than a page.
const Align = 4096

// New opens a source, and reads it, in a goroutine of its own, into count buffers of size bytes, which is a multiple of
// Align. A Read of the source gets the rest of a buffer, and all of an aligned one if the Read before it filled its own.
// What New returns is used by one goroutine. Its Close ends the context that open is given, and has the source closed
// once a Read of it that is under way has returned; it does not wait for that.
func New(ctx context.Context, size, count int, open func(ctx context.Context) (io.ReadCloser, error)) io.ReadCloser {
	ctx, stop := context.WithCancelCause(ctx)
	a := &reader{ctx: ctx, stop: stop, free: make(chan []byte, count), full: make(chan part, count)}
	for range count {
		a.free <- nil // made when it is needed
	}
	go a.run(size, open)
	return a
}

var errClosed = errors.New("read after it was closed")

// part is what was read into one buffer, and why there is no more.
type part struct {
	b   []byte
	err error
}

type reader struct {
	ctx  context.Context
	stop context.CancelCauseFunc
	free chan []byte
	full chan part

	now  part
	rest []byte // of now.b
}

func (a *reader) run(size int, open func(ctx context.Context) (io.ReadCloser, error)) {
	r, err := open(a.ctx)
	if err != nil {
		a.full <- part{err: err}
		return
	}
	defer r.Close()
	for {
		var buf []byte
		select {
		case buf = <-a.free:
		case <-a.ctx.Done():
			return
		}
		if a.ctx.Err() != nil {
			return
		}
		if buf == nil {
			buf = Buffer(size)
		}
		p := fill(r, buf[:size])
		a.full <- p // as many parts as there are buffers have room
		if p.err != nil {
			return
		}
	}
}

// fill reads until b is full.
func fill(r io.Reader, b []byte) (p part) {
	n, idle := 0, 0
	for n < len(b) && p.err == nil {
		var k int
		k, p.err = r.Read(b[n:])
		n += k
		if idle++; k > 0 {
			idle = 0
		} else if idle == 100 && p.err == nil {
			p.err = io.ErrNoProgress
		}
	}
	p.b = b[:n]
	return p
}

// Buffer returns size bytes that are aligned for O_DIRECT.
func Buffer(size int) []byte {
	b := make([]byte, size+Align)
	from := -int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) & (Align - 1)
	return b[from : from+size : from+size]
}

func (a *reader) Read(b []byte) (int, error) {
	if a.ctx.Err() != nil {
		return 0, context.Cause(a.ctx)
	}
	if len(b) == 0 {
		return 0, nil
	}
	for len(a.rest) == 0 {
		if a.now.err != nil {
			return 0, a.now.err
		}
		if a.now.b != nil {
			a.free <- a.now.b
		}
		select {
		case a.now = <-a.full:
			a.rest = a.now.b
		case <-a.ctx.Done():
			a.now = part{}
			return 0, context.Cause(a.ctx)
		}
	}
	n := copy(b, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

func (a *reader) Close() error {
	a.stop(errClosed) // the first cause stays
	return nil
}
