package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/time/rate"
)

// Pump is the producer of the server's relay: it reads the source once and cuts
// it into frames.
type Pump struct {
	Relay  *Relay
	Source Opener
	Blobs  []int         // in travelling order
	Limit  *rate.Limiter // nil: none

	size frameSize
}

// Unreadable is the error of a source that stopped to give bytes: a registry or a disk that
// failed, which says nothing against what came before.
type Unreadable struct{ error }

func (e *Unreadable) Unwrap() error { return e.error }

// readError is the error of a source that gives no more bytes.
func readError(err error) error {
	var w interface{ Wrong() bool }
	if errors.As(err, &w) && w.Wrong() {
		return err
	}
	return &Unreadable{err}
}

// Run reads all blobs to their ends.
func (p *Pump) Run(ctx context.Context) error {
	for _, b := range p.Blobs {
		if err := p.blob(ctx, b, p.Relay.descs[b]); err != nil {
			return err
		}
	}
	return nil
}

func (p *Pump) blob(ctx context.Context, b int, d v1.Descriptor) error {
	rc, err := p.Source.Open(ctx, d, 0)
	if err != nil {
		return readError(err)
	}
	defer rc.Close()
	var off int64
	for d.Size < 0 || off < d.Size {
		n := min(int64(p.size.next(p.Relay)), p.Relay.toMark(off))
		if d.Size >= 0 {
			n = min(n, d.Size-off)
		}
		buf, err := p.Relay.reserve(int(n))
		if err != nil {
			return err
		}
		p.Relay.meter.relay.is(waitCPU)
		k, err := io.ReadFull(rc, buf)
		if k > 0 {
			if err := p.frame(ctx, b, off, buf[:k]); err != nil {
				return err
			}
			off += int64(k)
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			break
		}
		if err != nil {
			return readError(err)
		}
	}
	if d.Size < 0 {
		p.Relay.SetSize(b, off)
		return nil
	}
	if off < d.Size {
		return fmt.Errorf("ended at byte %d of %d: it shrank while it was read", off, d.Size)
	}
	switch k, err := io.ReadFull(rc, make([]byte, 1)); {
	case k > 0:
		return fmt.Errorf("goes on after byte %d: it grew while it was read", d.Size)
	case err != io.EOF:
		return readError(err)
	}
	return nil
}

func (p *Pump) frame(ctx context.Context, b int, off int64, data []byte) error {
	if p.Limit != nil {
		p.Relay.meter.relay.is(waitLimit)
		if err := p.Limit.WaitN(ctx, len(data)); err != nil {
			return err
		}
		p.Relay.meter.relay.is(waitCPU)
	}
	var hdr [wire.HeaderSize]byte
	wire.PutData(&hdr, uint32(b), off, data)
	return p.Relay.put(&hdr, data, uint32(b), off)
}

// frameSize chooses the payload of frames: what the first link carries in 5 ms,
// because every hop holds a frame until its CRC is checked. The chain as a whole
// waits at each hop for the largest frame there ever was, so sizes start small and
// follow the slowest of the last samples: a burst that a shaper or a buffer lets through
// is not the link's rate. The rate is what the receiver's kernel acknowledged, not
// what ours took into its buffer.
type frameSize struct {
	size  int
	at    time.Time
	acked uint64
	last  [4]float64 // bytes a frame of each of the last samples would have
	n     int        // samples taken
}

const (
	frameUnit   = 4 << 10
	frameTime   = 5 * time.Millisecond
	frameSample = 25 * time.Millisecond
)

// Below this every hop is woken so often that on nodes with few cores the wakes are what the
// chain waits for: at 50 Mbit/s, 48 KiB were faster than 16, 32 and 64 with 33 processes on two.
const minFrame = 48 << 10

func (s *frameSize) next(r *Relay) int {
	smallest, largest := r.sizes().Frame, r.sizes().Chunk
	if s.size == 0 {
		s.size = smallest
	}
	now := time.Now()
	dt := now.Sub(s.at)
	if dt < frameSample {
		return s.size
	}
	acked, ok := r.acked()
	if ok && acked > s.acked && s.acked > 0 {
		s.last[s.n%len(s.last)] = float64(acked-s.acked) / dt.Seconds() * frameTime.Seconds()
		if s.n++; s.n >= len(s.last) {
			want := min(slices.Min(s.last[:]), 2*float64(s.size), float64(largest))
			s.size = max(int(want)&^(frameUnit-1), smallest)
		}
	}
	if ok {
		s.acked, s.at = acked, now
	}
	return s.size
}
