package ring

import (
	"context"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"
)

// pump is the producer of the server's relay: it reads the source once and cuts
// it into frames.
type pump struct {
	relay *relay
	src   Opener
	blobs []int
	limit *rate.Limiter // nil: none
	size  frameSize
}

func (p *pump) run(ctx context.Context) error {
	for _, b := range p.blobs {
		if err := p.blob(ctx, b, p.relay.descs[b]); err != nil {
			return err
		}
	}
	return nil
}

func (p *pump) blob(ctx context.Context, b int, d v1.Descriptor) error {
	rc, err := p.src.Open(ctx, d, 0)
	if err != nil {
		return err
	}
	defer rc.Close()
	var off int64
	for d.Size < 0 || off < d.Size {
		n := min(int64(p.size.next(p.relay)), wire.MarkEvery-off%wire.MarkEvery)
		if d.Size >= 0 {
			n = min(n, d.Size-off)
		}
		buf, err := p.relay.reserve(int(n))
		if err != nil {
			return err
		}
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
			return err
		}
	}
	if d.Size < 0 {
		p.relay.setSize(b, off)
		return nil
	}
	if off < d.Size {
		return fmt.Errorf("ended at byte %d of %d: it shrank while it was read", off, d.Size)
	}
	if k, _ := io.ReadFull(rc, make([]byte, 1)); k > 0 {
		return fmt.Errorf("goes on after byte %d: it grew while it was read", d.Size)
	}
	return nil
}

func (p *pump) frame(ctx context.Context, b int, off int64, data []byte) error {
	if p.limit != nil {
		if err := p.limit.WaitN(ctx, len(data)); err != nil {
			return err
		}
	}
	var hdr [wire.HeaderSize]byte
	wire.PutData(&hdr, uint32(b), off, data)
	return p.relay.put(&hdr, data, uint32(b), off)
}

// frameSize chooses the payload of frames: what the first link carries in 5 ms,
// because every hop holds a frame until its CRC is checked and T(N) grows by one
// frame a hop. The rate is what the receiver's kernel acknowledged, not what ours
// took into its buffer.
type frameSize struct {
	size  int
	at    time.Time
	acked uint64
}

const (
	minFrame  = 16 << 10
	frameUnit = 4 << 10
	frameTime = 5 * time.Millisecond
)

var firstFrame = 64 << 10 // smaller in tests with small windows

func (s *frameSize) next(r *relay) int {
	if s.size == 0 {
		s.size = firstFrame
	}
	now := time.Now()
	if dt := now.Sub(s.at); dt >= 25*time.Millisecond {
		if acked, ok := r.acked(); ok {
			if acked > s.acked && s.acked > 0 {
				want := float64(acked-s.acked) / dt.Seconds() * frameTime.Seconds()
				s.size = int(min(max(want, minFrame), wire.MaxPayload)) &^ (frameUnit - 1)
			}
			s.acked, s.at = acked, now
		}
	}
	return s.size
}

// acked is how many bytes the receiver of the first link has acknowledged.
func (r *relay) acked() (uint64, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.links {
		switch w := l.conn.(type) {
		case *plainWriter:
			return bytesAcked(w.conn)
		case *tlsWriter:
			return bytesAcked(w.batch.Conn)
		}
	}
	return 0, false
}

func bytesAcked(conn net.Conn) (n uint64, ok bool) {
	s, is := conn.(syscall.Conn)
	if !is {
		return 0, false
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return 0, false
	}
	raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.SOL_TCP, unix.TCP_INFO); err == nil {
			n, ok = info.Bytes_acked, true
		}
	})
	return n, ok
}
