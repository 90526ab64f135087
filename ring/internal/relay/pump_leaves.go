package relay

import (
	"context"
	"fmt"
	"io"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// skipper is a reader that may know of zeros without reading them (ring.ZeroSkipper).
type skipper interface {
	SkipZeros(most int64) (n int64, err error)
}

// some sends those leaves of a blob that the relay does not hold.
func (p *Pump) some(ctx context.Context, b int, d v1.Descriptor) error {
	for off := p.Relay.pass(b, 0); off < d.Size; off = p.Relay.pass(b, off) {
		rc, err := p.Open(ctx, d, off)
		if err != nil {
			return readError(err)
		}
		end := p.Relay.until(b, off)
		off, err = p.leavesTo(ctx, b, d, rc, off, end)
		rc.Close()
		if err != nil {
			return err
		}
		if off < end {
			return fmt.Errorf("ended at byte %d of %d: it shrank while it was read", off, d.Size)
		}
	}
	return nil
}

// leaves sends what r reads of a blob in leaves, until it ends, and returns how much that is.
func (p *Pump) leaves(ctx context.Context, b int, d v1.Descriptor, r io.Reader) (off int64, err error) {
	return p.leavesTo(ctx, b, d, r, 0, d.Size)
}

// leavesTo does that from off on, which is the front of a leaf, and before end. It returns up to where it has read.
func (p *Pump) leavesTo(ctx context.Context, b int, d v1.Descriptor, r io.Reader, off, end int64) (int64, error) {
	c := &cutter{pump: p, blob: uint32(b), size: d.Size}
	defer c.drop()
	skips, _ := r.(skipper)
	for off < end {
		most := min(p.Relay.toMark(off), end-off)
		if skips != nil {
			k, err := skips.SkipZeros(most)
			if err != nil {
				return off, readError(err)
			}
			if k > 0 {
				if err := c.zeros(ctx, off, k); err != nil {
					return off, err
				}
				off += k
				continue
			}
		}
		buf, err := c.reserve(ctx, p.leafFrame(off, most))
		if err != nil {
			return off, err
		}
		p.Relay.meter.relay.is(waitCPU)
		k, failed := io.ReadFull(r, buf)
		if err := c.cut(ctx, off, buf[:k]); err != nil {
			return off, err
		}
		off += int64(k)
		if failed == nil {
			continue
		}
		if err := c.flush(ctx, 0); err != nil {
			return off, err
		}
		if failed == io.EOF || failed == io.ErrUnexpectedEOF {
			return off, nil
		}
		return off, readError(failed)
	}
	return off, nil
}

// leafFrame returns how much is read next, so that it ends where zeros are looked for, if it is not short.
func (p *Pump) leafFrame(off, most int64) int {
	n, unit := min(int64(p.next()), most), int64(p.Relay.sizes().Zero)
	if n >= 2*unit && n < most {
		n -= (off + n) % unit
	}
	return int(n)
}

// cutter makes frames of a blob in leaves. It holds the last frame back until it knows the next one, or has to wait for room:
// a run of zeros may go on, and a DATA frame says whether another one as long comes next. It holds none back at the
// end of a leaf.
type cutter struct {
	pump *Pump
	blob uint32
	size int64
	held frame // n is 0 where there is none
}

// reserve returns memory to read n bytes into.
func (c *cutter) reserve(ctx context.Context, n int) ([]byte, error) {
	if buf := c.pump.Relay.tryReserve(n); buf != nil {
		return buf, nil
	}
	if err := c.flush(ctx, 0); err != nil {
		return nil, err
	}
	return c.pump.Relay.reserve(n)
}

// cut makes frames of what was read into the memory of reserve.
func (c *cutter) cut(ctx context.Context, off int64, b []byte) error {
	for len(b) > 0 {
		n, zero := firstRun(b, off, c.pump.Relay.sizes().Zero)
		next := c.data
		if zero {
			next = func(ctx context.Context, off int64, b []byte) error { return c.zeros(ctx, off, int64(len(b))) }
		}
		if err := next(ctx, off, b[:n]); err != nil {
			return err
		}
		b, off = b[n:], off+int64(n)
	}
	return nil
}

// data takes bytes that are not all zeros.
func (c *cutter) data(ctx context.Context, off int64, b []byte) error {
	claimed := c.pump.Relay.claim(b) // before flush, which may wait, and must not have the memory used again
	if err := c.flush(ctx, len(b)); err != nil {
		c.pump.Relay.unclaim(claimed)
		return err
	}
	c.held = frame{data: b, n: len(b), blob: c.blob, off: off, chunk: claimed}
	return c.settle(ctx)
}

// zeros takes a run of zeros.
func (c *cutter) zeros(ctx context.Context, off, n int64) error {
	if c.held.n > 0 && c.held.data == nil {
		c.held.n += int(n)
	} else {
		if err := c.flush(ctx, 0); err != nil {
			return err
		}
		c.held = frame{n: int(n), blob: c.blob, off: off}
	}
	return c.settle(ctx)
}

// settle sends what is held at the end of a leaf.
func (c *cutter) settle(ctx context.Context) error {
	if end := c.held.end(); c.pump.Relay.atMark(end) || end == c.size {
		return c.flush(ctx, 0)
	}
	return nil
}

// flush sends what is held. next is the length of the DATA frame that comes next, 0 where that is not sure.
func (c *cutter) flush(ctx context.Context, next int) error {
	f := c.held
	if f.n == 0 {
		return nil
	}
	r := c.pump.Relay
	if f.data == nil {
		if err := r.reserveZero(); err != nil {
			return err
		}
		if err := r.limitedZeros(ctx, c.pump.Limit, f.n); err != nil {
			return err
		}
		wire.PutZero(&f.hdr, f.blob, f.off, f.n)
	} else {
		if err := c.pump.limit(ctx, f.n); err != nil {
			return err
		}
		put := wire.PutData
		if next >= f.n {
			put = wire.PutDataMore
		}
		put(&f.hdr, f.blob, f.off, f.data)
	}
	err := r.publish(f)
	if err == nil {
		c.held = frame{}
	}
	return err
}

// drop gives up what is held.
func (c *cutter) drop() {
	if c.held.chunk != nil {
		c.pump.Relay.unclaim(c.held.chunk)
	}
}

// claim keeps data, which is a part of what reserve returned last, for a frame that is published later, or unclaim.
func (r *Relay) claim(data []byte) *chunk {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.win.claim(data)
}

func (r *Relay) unclaim(c *chunk) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.win.unclaim(c)
}
