package relay

import (
	"context"
	"io"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/dolly-img/dolly-img/ring/leaf"
)

// sendStored writes the next n bytes that l lacks, from storage, and returns false when the link has
// failed. As catchUp it does not hold the relay's mutex while it reads and writes.
func (r *Relay) sendStored(ctx context.Context, l *outLink, n int) bool {
	blob, pos, _ := l.cursor()
	l.writing = true
	r.mu.Unlock()
	err := r.replay(ctx, l, blob, pos, n)
	r.mu.Lock()
	l.writing = false
	if err != nil {
		code := wire.CodeNetwork
		if ne, ok := err.(*wire.Error); ok {
			code = ne.Code
		}
		r.failLocked(l, code, err)
		return false
	}
	r.advance(l, n)
	return true
}

// replay sends n stored bytes, as one frame unless there are zeros among them.
func (r *Relay) replay(ctx context.Context, l *outLink, blob uint32, pos int64, n int) error {
	if l.reads == nil || l.reads.blob != blob || l.reads.off != pos {
		if l.reads != nil {
			l.reads.Close()
			l.reads = nil
		}
		s, err := r.openAt(ctx, blob, pos)
		if err != nil {
			return wire.Errorf(wire.CodeGone, "replay of %s: %w", wire.Called(r.descs, int(blob)), err)
		}
		l.reads = s
	}
	r.makeBuf(l)
	if _, err := io.ReadFull(l.reads, l.buf[:n]); err != nil {
		return wire.Errorf(wire.CodeGone, "replay of %s at byte %d: %w", wire.Called(r.descs, int(blob)), pos, err)
	}
	l.reads.off += int64(n)
	if !l.zeros || !leaf.In(r.descs[blob]) {
		return r.sendData(l, blob, pos, l.buf[:n], nil)
	}
	for b := l.buf[:n]; len(b) > 0; {
		k, zero := firstRun(b, pos, r.sizes().Zero)
		send := func() error { return r.sendData(l, blob, pos, b[:k], nil) }
		if zero {
			send = func() error { return r.sendZeros(l, blob, pos, k, nil) }
		}
		if err := send(); err != nil {
			return err
		}
		b, pos = b[k:], pos+int64(k)
	}
	return nil
}

// maxReplay is how many bytes a frame has at most whose link needs memory of its own for it: there may be many such links.
func (r *Relay) maxReplay() int { return r.sizes().Chunk / 4 }

// makeBuf makes the buffer of l.
func (r *Relay) makeBuf(l *outLink) {
	if l.buf == nil {
		l.buf = make([]byte, r.maxReplay())
	}
}

// copied is data in the buffer of l, as far as it fits.
func (r *Relay) copied(l *outLink, data []byte) []byte {
	if data == nil {
		return nil
	}
	r.makeBuf(l)
	return l.buf[:copy(l.buf, data)]
}
