package durable

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"
)

// writeback is how many bytes are written before the kernel is asked to start writing them to the device, so
// that the last fsync has little left to do.
const writeback = 8 << 20

// Part is a file that one goroutine fills from its front while others read what is already there.
type Part struct {
	File     File
	written  atomic.Int64 // leading bytes that are there to be read
	ahead    atomic.Int64 // leading bytes that were there before and can be read, too; 0 unless Ahead was called
	started  int64        // leading bytes whose writeback was begun
	reserved int64        // leading bytes that may have blocks, beyond the length of the file too
}

// NewPart goes on with a file of which the leading bytes are written.
func NewPart(f File, written int64) *Part {
	p := &Part{File: f}
	p.written.Store(written)
	return p
}

// Written returns how many leading bytes can be read.
func (p *Part) Written() int64 { return p.written.Load() }

// Ahead says that the first n bytes of the file were there before, and stay until others are written in their place: they can
// be read, and what is written begins at its front.
func (p *Part) Ahead(n int64) {
	p.ahead.Store(n)
	p.written.Store(0)
}

// IsAhead reports whether Ahead was called.
func (p *Part) IsAhead() bool { return p.ahead.Load() > 0 }

// Readable returns how many leading bytes can be read, written or there before.
func (p *Part) Readable() int64 { return max(p.written.Load(), p.ahead.Load()) }

// Reserve reserves the blocks for a file of size bytes without changing its length. If there is no space for them, it
// fails, and the caller removes the file. If the file system cannot reserve, it does nothing.
func (p *Part) Reserve(size int64) error {
	p.reserved = max(p.reserved, size)
	return reserve(p.File, size)
}

// Clone makes an empty part a copy of all of src that shares its blocks. It fails if the file system cannot do that, or
// if src is no file.
func (p *Part) Clone(src any) error {
	if err := clone(p.File, src); err != nil {
		return err
	}
	info, err := p.File.Stat()
	if err == nil {
		p.written.Store(info.Size())
	}
	return err
}

// CloneBehind makes what is behind the leading off bytes of a part, which are there, what src has from off on, and shares its
// blocks. It fails as Clone does, and where off is not at the front of a block.
func (p *Part) CloneBehind(src any, off int64) error { return cloneBehind(p.File, src, off) }

// Put stores bytes anywhere in front of what Ahead names. It may be called by several at once, and beside the other methods.
func (p *Part) Put(b []byte, off int64) error {
	n, err := p.File.WriteAt(b, off)
	if err == nil {
		err = startWriteback(p.File, off, int64(n))
	}
	return err
}

// Write appends b to what is written. Nothing of it is durable before Sync of the file.
func (p *Part) Write(b []byte) (int, error) { return p.WriteAt(b, p.written.Load()) }

// WriteAt is Write for bytes that begin behind those that are written: what is between was there before, and counts as
// written from now on.
func (p *Part) WriteAt(b []byte, off int64) (int, error) {
	if have := p.written.Load(); off < have {
		return 0, fmt.Errorf("write at %d, before the end of the %d bytes that are written", off, have)
	}
	n, err := p.File.WriteAt(b, off)
	end := off + int64(n)
	p.written.Store(end)
	if err == nil && end-p.started >= writeback {
		err = startWriteback(p.File, p.started, end-p.started)
		p.started = end
	}
	return n, err
}

// Zero is WriteAt of n zeros. They become a hole, whatever was there before or is reserved; where the file system makes none
// they are written as far as the file had bytes there.
func (p *Part) Zero(off, n int64) error {
	if have := p.written.Load(); off < have {
		return fmt.Errorf("zeros at %d, before the end of the %d bytes that are written", off, have)
	}
	info, err := p.File.Stat()
	if err != nil {
		return err
	}
	end, size := off+n, info.Size()
	if end > size { // first, because ext4 gives back no blocks behind the end
		if err := p.File.Truncate(end); err != nil {
			return err
		}
	}
	if off < max(size, p.reserved) {
		if err := punch(p.File, off, n); err != nil {
			if err := writeZeros(p.File, off, min(end, size)); err != nil {
				return err
			}
		}
	}
	p.written.Store(end)
	return nil
}

// writeZeros writes zeros from off to end.
func writeZeros(w io.WriterAt, off, end int64) error {
	if off >= end {
		return nil
	}
	zeros := make([]byte, min(end-off, 1<<20))
	for off < end {
		n, err := w.WriteAt(zeros[:min(end-off, int64(len(zeros)))], off)
		if err != nil {
			return err
		}
		off += int64(n)
	}
	return nil
}

// Flush waits until the device has taken what is written, but for the last bytes, and calls done after each 8 MiB. It
// makes nothing durable, but leaves little to do for Sync of the file, which tells nobody how far it is.
func (p *Part) Flush(ctx context.Context, done func(bytes int64)) error {
	for off, end := int64(0), p.written.Load(); end-off > writeback; off += writeback {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := waitWriteback(p.File, off, writeback); err != nil {
			return err
		}
		done(writeback)
	}
	return nil
}

// Cut keeps the leading n bytes, and behind them what was there before.
func (p *Part) Cut(n int64) error {
	if have := p.Readable(); n < 0 || n > have {
		return fmt.Errorf("cannot keep %d of %d bytes", n, have)
	}
	p.written.Store(n)
	p.started = min(p.started, n)
	if p.IsAhead() {
		return nil
	}
	return p.File.Truncate(n)
}

// Open reads what is written, from off on. The reader ends where the part ends at the time of the read. Its
// first Close calls closed, unless that is nil.
func (p *Part) Open(ctx context.Context, off int64, closed func() error) (io.ReadCloser, error) {
	if have := p.Readable(); off < 0 || off > have {
		return nil, fmt.Errorf("offset %d is outside the %d bytes that are stored", off, have)
	}
	return &partReader{ctx: ctx, p: p, off: off, closed: closed}, nil
}

type partReader struct {
	ctx    context.Context
	p      *Part
	off    int64
	closed func() error // called by the first Close; may be nil
}

func (r *partReader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	have := r.p.Readable() - r.off
	if len(b) == 0 {
		return 0, nil
	}
	if have <= 0 {
		return 0, io.EOF
	}
	n, err := r.p.File.ReadAt(b[:min(int64(len(b)), have)], r.off)
	r.off += int64(n)
	if err == io.EOF && n > 0 {
		err = nil
	} else if err == io.EOF {
		err = io.ErrUnexpectedEOF // Somebody else has cut the file short.
	}
	return n, err
}

func (r *partReader) Close() error {
	if r.closed == nil {
		return nil
	}
	closed := r.closed
	r.closed = nil
	return closed()
}
