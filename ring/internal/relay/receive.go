package relay

import (
	"context"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/dolly-img/dolly-img/ring/leaf"
	"golang.org/x/time/rate"
)

// Receive is the producer of a node's relay: it reads a link until its final record, and checks and forwards
// each frame before it reads the next. accept says whether a frame, which is whole, is the next one; a nil limit is none.
func (r *Relay) Receive(ctx context.Context, l *LinkReader, limit *rate.Limiter, accept func(wire.Header) bool) (fin bool, err error) {
	var hdr [wire.HeaderSize]byte
	sure := 0
	l.low.meter = &r.meter.relay
	l.low.meter.is(waitCPU)
	defer l.low.meter.is(waitIn) // the next one's
	for {
		h, err := l.header(&hdr, sure, r.sizes().Mark)
		if err != nil {
			return false, err
		}
		if h.Type == wire.Fin {
			if wire.Sum(&hdr, nil) != h.CRC {
				return false, wire.Errorf(wire.CodeCRC, "the final record was damaged on the link")
			}
			return true, nil
		}
		if h.Type == wire.Zero {
			if err := r.receiveZeros(ctx, &hdr, h, limit, accept); err != nil {
				return false, err
			}
			sure = 0
			continue
		}
		buf, err := r.reserve(h.Length)
		if err != nil {
			return false, err
		}
		if err := l.payload(&hdr, h, buf); err == errDamaged {
			return false, r.damaged(h)
		} else if err != nil {
			return false, err
		}
		r.win.pool.received.Add(int64(h.Length))
		if err := r.limited(ctx, limit, h.Length); err != nil {
			return false, err
		}
		if !accept(h) {
			return false, wire.Errorf(wire.CodeProtocol, "unexpected bytes of %s at %d", wire.Called(r.descs, int(h.Blob)), h.Offset)
		}
		if err := r.put(&hdr, buf, h.Blob, h.Offset); err != nil {
			return false, err
		}
		// To wait for more than one frame would only delay that frame.
		sure = r.sure(l, h)
	}
}

// sure returns how much payload is sure to come behind a DATA frame.
func (r *Relay) sure(l *LinkReader, h wire.Header) int {
	d := r.descs[h.Blob]
	switch {
	case (!l.zeros || !leaf.In(d)) && r.blobs[h.Blob].held == nil: // the rest of a blob of known size
		return int(min(int64(h.Length), max(0, d.Size-h.Offset-int64(h.Length))))
	case h.More:
		return h.Length
	}
	return 0
}

// damaged is the error of a frame whose checksum is wrong.
func (r *Relay) damaged(h wire.Header) error {
	return wire.Errorf(wire.CodeCRC, "%s at byte %d: frame was damaged on the link", wire.Called(r.descs, int(h.Blob)), h.Offset)
}

// receiveZeros takes a ZERO frame.
func (r *Relay) receiveZeros(ctx context.Context, hdr *[wire.HeaderSize]byte, h wire.Header, limit *rate.Limiter, accept func(wire.Header) bool) error {
	if wire.Sum(hdr, nil) != h.CRC {
		return r.damaged(h)
	}
	if int64(h.Blob) >= int64(len(r.descs)) || !leaf.In(r.descs[h.Blob]) {
		return &wire.FrameError{Reason: "zeros of a blob that is not in leaves"}
	}
	if err := r.reserveZero(); err != nil {
		return err
	}
	if err := r.limitedZeros(ctx, limit, h.Length); err != nil {
		return err
	}
	if !accept(h) {
		return wire.Errorf(wire.CodeProtocol, "unexpected bytes of %s at %d", wire.Called(r.descs, int(h.Blob)), h.Offset)
	}
	return r.publish(frame{hdr: *hdr, n: h.Length, blob: h.Blob, off: h.Offset})
}
