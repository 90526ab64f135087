package relay

import (
	"context"

	"golang.org/x/time/rate"
)

// limited waits until so many bytes may pass. A nil limit is none, and so is an infinite one.
func (r *Relay) limited(ctx context.Context, limit *rate.Limiter, n int) error {
	if limit == nil || limit.Limit() == rate.Inf {
		return nil
	}
	r.meter.relay.is(waitLimit)
	defer r.meter.relay.is(waitCPU)
	for n > 0 {
		k := min(n, limit.Burst())
		if err := limit.WaitN(ctx, k); err != nil {
			return err
		}
		n -= k
	}
	return nil
}

// limitedZeros is limited for a run of zeros, which no limit counts unless a link has to carry it as bytes.
func (r *Relay) limitedZeros(ctx context.Context, limit *rate.Limiter, n int) error {
	if limit == nil || !r.carriesZeros() {
		return nil
	}
	return r.limited(ctx, limit, n)
}

// carriesZeros reports whether a link carries zeros as bytes.
func (r *Relay) carriesZeros() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.links {
		if !l.zeros && !l.dead {
			return true
		}
	}
	return false
}
