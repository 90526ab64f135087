package relay

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/dolly-img/dolly-img/ring/leaf"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/time/rate"
)

// Pump is the producer of the server's relay: it reads the source once and cuts
// it into frames.
type Pump struct {
	Relay *Relay
	// Open opens the source. What it reads need not be verified, because the server's store hashes all of it.
	Open func(ctx context.Context, d v1.Descriptor, off int64) (io.ReadCloser, error)
	// Blobs are the numbers of the blobs, in travelling order.
	Blobs []int
	// Limit bounds the bytes per second. nil is no limit.
	Limit *rate.Limiter
	// Hops is about how many nodes the frames pass.
	Hops int

	size frameSize
}

// Unreadable is the error of a source that stopped to give bytes, because a registry or a disk
// failed. It says nothing against the bytes that came before.
type Unreadable struct{ error }

func (e *Unreadable) Unwrap() error { return e.error }

// readError turns the error of a source that gives no more bytes into an Unreadable, unless the source says
// that its bytes were wrong.
func readError(err error) error {
	var w interface{ Wrong() bool }
	if errors.As(err, &w) && w.Wrong() {
		return err
	}
	return &Unreadable{err}
}

// Run reads all blobs to their ends, and returns how many it has read.
func (p *Pump) Run(ctx context.Context) (read int, err error) {
	for i, b := range p.Blobs {
		if err := p.blob(ctx, b, p.Relay.descs[b]); err != nil {
			return i, err
		}
	}
	return len(p.Blobs), nil
}

func (p *Pump) blob(ctx context.Context, b int, d v1.Descriptor) error {
	if p.Relay.until(b, 0) < d.Size {
		return p.some(ctx, b, d)
	}
	rc, err := p.Open(ctx, d, 0)
	if err != nil {
		return readError(err)
	}
	defer rc.Close()
	read := p.whole
	if leaf.In(d) {
		read = p.leaves
	}
	off, err := read(ctx, b, d, rc)
	if err != nil {
		return err
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

// whole sends what r reads of a blob that is not in leaves, until it ends, and returns how much that is.
func (p *Pump) whole(ctx context.Context, b int, d v1.Descriptor, r io.Reader) (off int64, err error) {
	for d.Size < 0 || off < d.Size {
		n := min(int64(p.next()), p.Relay.toMark(off))
		if d.Size >= 0 {
			n = min(n, d.Size-off)
		}
		buf, err := p.Relay.reserve(int(n))
		if err != nil {
			return off, err
		}
		p.Relay.meter.relay.is(waitCPU)
		k, err := io.ReadFull(r, buf)
		if k > 0 {
			if err := p.frame(ctx, b, off, buf[:k]); err != nil {
				return off, err
			}
			off += int64(k)
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return off, nil
		}
		if err != nil {
			return off, readError(err)
		}
	}
	return off, nil
}

// next returns the payload of the next frame in bytes.
func (p *Pump) next() int { return p.size.next(p.Relay.sizes(), p.Hops, p.Relay.acked) }

func (p *Pump) frame(ctx context.Context, b int, off int64, data []byte) error {
	if err := p.limit(ctx, len(data)); err != nil {
		return err
	}
	var hdr [wire.HeaderSize]byte
	wire.PutData(&hdr, uint32(b), off, data)
	return p.Relay.put(&hdr, data, uint32(b), off)
}

// limit waits until so many bytes may be sent.
func (p *Pump) limit(ctx context.Context, n int) error { return p.Relay.limited(ctx, p.Limit, n) }

// Brought returns the first byte that the producer has not brought yet: a blob, and an offset in it.
func (r *Relay) Brought() (blob int, off int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.blobs {
		if b := &r.blobs[i]; b.arriving && b.recv != b.size {
			return i, b.recv
		}
	}
	return len(r.blobs), 0
}
