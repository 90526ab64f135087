package relay

import (
	"context"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
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
		buf, err := r.reserve(h.Length)
		if err != nil {
			return false, err
		}
		if err := l.payload(&hdr, h, buf); err != nil {
			return false, err
		}
		if limit != nil {
			r.meter.relay.is(waitLimit)
			if err := limit.WaitN(ctx, h.Length); err != nil {
				return false, err
			}
			r.meter.relay.is(waitCPU)
		}
		if !accept(h) {
			return false, wire.Errorf(wire.CodeProtocol, "unexpected bytes of blob %d at %d", h.Blob, h.Offset)
		}
		if err := r.put(&hdr, buf, h.Blob, h.Offset); err != nil {
			return false, err
		}
		// The rest of a blob of known size is sure to come. To wait for more than
		// one frame of it would only delay that frame.
		sure = int(min(int64(h.Length), max(0, r.descs[h.Blob].Size-h.Offset-int64(h.Length))))
	}
}
