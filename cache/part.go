package cache

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// writeback is how many bytes are written before the kernel is asked to start
// writing them to the device, so that the last fsync has little left to do.
const writeback = 8 << 20

// part is a blob that is filled from its front by one goroutine while others may
// read what is already there.
type part struct {
	d       v1.Descriptor // as it was begun; the digest may not be known
	f       file
	name    string       // below ingest
	begun   bool         // else it was only claimed
	written atomic.Int64 // leading bytes that are there to be read
	started int64        // leading bytes whose writeback was begun
	users   atomic.Int32 // the transfer and its readers; the last one closes f
}

func (p *part) Write(b []byte) (int, error) {
	off := p.written.Load()
	n, err := p.f.WriteAt(b, off)
	end := off + int64(n)
	p.written.Store(end)
	if err == nil && end-p.started >= writeback {
		err = startWriteback(p.f, p.started, end-p.started)
		p.started = end
	}
	return n, err
}

// cut keeps the leading n bytes.
func (p *part) cut(n int64) error {
	if have := p.written.Load(); n < 0 || n > have {
		return fmt.Errorf("cannot keep %d of %d bytes", n, have)
	}
	p.written.Store(n)
	p.started = min(p.started, n)
	return p.f.Truncate(n)
}

// open reads what is written, from off on; the reader ends where the part ends
// at the time of the read. The caller is a user.
func (p *part) open(ctx context.Context, off int64) (io.ReadCloser, error) {
	if have := p.written.Load(); off < 0 || off > have {
		return nil, fmt.Errorf("offset %d is outside the %d bytes that are stored", off, have)
	}
	p.users.Add(1)
	return &partReader{ctx: ctx, p: p, off: off}, nil
}

func (p *part) release() error {
	if p.users.Add(-1) == 0 {
		return p.f.Close()
	}
	return nil
}

type partReader struct {
	ctx    context.Context
	p      *part
	off    int64
	closed bool
}

func (r *partReader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	have := r.p.written.Load() - r.off
	if len(b) == 0 {
		return 0, nil
	}
	if have <= 0 {
		return 0, io.EOF
	}
	n, err := r.p.f.ReadAt(b[:min(int64(len(b)), have)], r.off)
	r.off += int64(n)
	if err == io.EOF && n > 0 {
		err = nil
	} else if err == io.EOF {
		err = io.ErrUnexpectedEOF // cut short below us
	}
	return n, err
}

func (r *partReader) Close() error {
	if r.closed {
		return nil
	}
	r.closed = true
	return r.p.release()
}
