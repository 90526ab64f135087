package relay

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"runtime"
	"sync"
	"testing"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/dolly-img/dolly-img/ring/leaf"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/time/rate"
)

// sparse is n bytes of which only some are not zeros: the runs of them begin and end anywhere.
func sparse(n int) []byte {
	b := make([]byte, n)
	for i, off := 0, 100_000; off < n; i++ {
		k := min([]int{1, 300_000, 64 << 10, 1 << 20, 2_500_000}[i%5], n-off)
		copy(b[off:], random(uint64(i), k))
		off += k + []int{64<<10 - 1, 5 << 20, 200_000, 11_000_000}[i%4]
	}
	return b
}

// placed is a target of a test. It refuses what is written behind a gap.
type placed struct {
	mu    sync.Mutex
	b     []byte
	zeros int64
}

func (p *placed) WriteAt(b []byte, off int64) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if off != int64(len(p.b)) {
		return 0, fmt.Errorf("write at %d behind %d bytes", off, len(p.b))
	}
	p.b = append(p.b, b...)
	return len(b), nil
}

func (p *placed) Write([]byte) (int, error) { return 0, fmt.Errorf("Write of a placer is called") }

func (p *placed) Zero(off, n int64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if at := int64(len(p.b)); off != at || n > int64(cap(p.b))-at {
		return fmt.Errorf("%d zeros at %d behind %d bytes", n, off, at)
	}
	p.b = p.b[:off+n] // never written before
	p.zeros += n
	return nil
}

func (p *placed) Open(_ context.Context, _ v1.Descriptor, off int64) (io.ReadCloser, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return io.NopCloser(bytes.NewReader(p.b[off:])), nil
}

// holes is a reader that knows of zeros.
type holes struct {
	*bytes.Reader
	skipped int64
}

func (h *holes) Close() error { return nil }

func (h *holes) SkipZeros(most int64) (n int64, err error) {
	at := h.Size() - int64(h.Len())
	for buf, seen := make([]byte, 64<<10), 1; seen > 0 && n < most; {
		read, _ := h.ReadAt(buf[:min(most-n, int64(len(buf)))], at+n)
		seen = read - len(bytes.TrimLeft(buf[:read], "\x00"))
		n += int64(seen)
	}
	if n < 64<<10 {
		return 0, nil
	}
	h.skipped += n
	_, err = h.Seek(n, io.SeekCurrent)
	return n, err
}

// hop is a node of a test.
type hop struct {
	relay *Relay
	store placed
}

// newHop makes a node for a blob, which stores what it receives over r.
func newHop(t *testing.T, d v1.Descriptor, r *LinkReader, work *sync.WaitGroup) *hop {
	return newLimitedHop(t, d, r, nil, work)
}

// newLimitedHop is newHop for a node with a limit.
func newLimitedHop(t *testing.T, d v1.Descriptor, r *LinkReader, limit *rate.Limiter, work *sync.WaitGroup) *hop {
	h := &hop{relay: New(NewPool(0, Sizes{}), []v1.Descriptor{d}), store: placed{b: make([]byte, 0, d.Size)}}
	h.relay.Arrive(&h.store, func(int) (int64, bool) { return 0, true })
	s := &Store{Relay: h.relay, Blobs: []int{0}, Hashers: 2, Saved: new(SavedSums),
		Begin: func(context.Context, int, int64) (io.Writer, error) { return &h.store, nil },
		Sum: func(_ int, off int64, sum []byte, end bool) error {
			h.relay.SetReadable(0, off)
			if end {
				d.Digest = leaf.Digest(sum)
			}
			return nil
		}}
	work.Go(func() {
		if err := s.Run(t.Context()); err != nil && err != ErrClosed {
			t.Errorf("store: %v", err)
		}
		if want, err := leaf.Of(t.Context(), bytes.NewReader(h.store.b), d.Size); err != nil || d.Digest != want {
			t.Errorf("tells of %s, stored %s, %v", d.Digest, want, err)
		}
	})
	next := int64(0)
	work.Go(func() {
		fin, err := h.relay.Receive(t.Context(), r, limit, func(f wire.Header) bool {
			if f.Offset != next {
				return false
			}
			next += int64(f.Length)
			return true
		})
		if !fin || err != nil {
			t.Errorf("receive: %v, %v", fin, err)
		}
	})
	return h
}

// feed has a relay feed a new link that begins with hello, and returns its other end.
func feed(t *testing.T, r *Relay, link uint32, secure bool, hello wire.LinkHello) *LinkReader {
	w, in := pairOf(t, secure, hello)
	d := &wire.Dial{Link: link, Padded: hello.Padded, Zeros: hello.Zeros, Needs: [][2]int64{{0, 0}}}
	err := r.Feed(t.Context(), d, func(context.Context, wire.LinkHello) (LinkWriter, error) { return w, nil },
		func(_, _ uint32, state string, _ wire.Code, reason string) {
			if state != wire.LinkUp {
				t.Errorf("link %d is %s: %s", link, state, reason)
			}
		})
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// A sparse blob goes from the source over a node that knows ZERO to one that does, to one that does not, and to one that is
// fed from storage: all have the bytes, and hardly more than the data travels.
func TestZerosTravel(t *testing.T) {
	content := sparse(19<<20 + 12345)
	var data int64
	for off := 0; off < len(content); {
		n, zero := firstRun(content[off:], int64(off), 64<<10)
		if off += n; !zero {
			data += int64(n)
		}
	}
	d := v1.Descriptor{MediaType: leaf.MediaType, Size: int64(len(content))}
	for _, secure := range []bool{false, true} {
		for _, knows := range []bool{false, true} { // the source does
			t.Run(fmt.Sprintf("tls %v, skips %v", secure, knows), func(t *testing.T) {
				server := New(NewPool(0, Sizes{}), []v1.Descriptor{d})
				server.Arrive(nil, func(int) (int64, bool) { return 0, true })
				var work sync.WaitGroup
				new6, new5 := wire.LinkHello{Padded: true, Zeros: true}, wire.LinkHello{Padded: true}
				one := newHop(t, d, feed(t, server, 1, secure, new6), &work)
				two := newHop(t, d, feed(t, one.relay, 2, secure, new6), &work)
				old := newHop(t, d, feed(t, one.relay, 3, secure, new5), &work)
				work.Go(func() {
					s := &Store{Relay: server, Blobs: []int{0}, Sum: func(int, int64, []byte, bool) error { return nil }}
					if err := s.Run(t.Context()); err != nil {
						t.Error(err)
					}
				})
				source := &holes{Reader: bytes.NewReader(content)}
				p := &Pump{Relay: server, Blobs: []int{0}, Open: func(context.Context, v1.Descriptor, int64) (io.ReadCloser, error) {
					if knows {
						return source, nil
					}
					return io.NopCloser(source.Reader), nil
				}}
				if _, err := p.Run(t.Context()); err != nil {
					t.Error(err)
				}
				work.Wait()
				late := newHop(t, d, feed(t, two.relay, 4, secure, new6), &work) // from storage, and what is in the window
				work.Wait()
				for i, h := range []*hop{one, two, old, late} {
					if !bytes.Equal(h.store.b, content) {
						t.Errorf("node %d has other bytes", i)
					}
					if zeros := int64(len(content)) - data; h != old && h.store.zeros < zeros-zeros/8 || h == old && h.store.zeros > 0 {
						t.Errorf("node %d was told of %d zeros of %d", i, h.store.zeros, zeros)
					}
				}
				if source.skipped == 0 == knows {
					t.Errorf("%d bytes were skipped", source.skipped)
				}
				for what, got := range map[string]int64{"server": server.Sent(), "node with a new successor": two.relay.Sent(), "node with an old one, too": one.relay.Sent() - d.Size} {
					if got < data/2 || got > data+data/8 {
						t.Errorf("%s sent %d bytes of the %d that are not zeros", what, got, data)
					}
				}
				for _, r := range []*Relay{server, one.relay, two.relay, old.relay, late.relay} {
					r.Close(ErrClosed)
					r.Release()
					if used := r.win.pool.Used(); used != 0 {
						t.Errorf("%d bytes are not given back", used)
					}
				}
			})
		}
	}
}

// A limit counts zeros where a link carries them as bytes, on the server and on a node, and nowhere else.
func TestLimitOfZeros(t *testing.T) {
	const size = 16 << 20
	d := v1.Descriptor{MediaType: leaf.MediaType, Size: size}
	for _, c := range []struct{ out, in bool }{{true, true}, {false, true}, {true, false}} { // out of the server, and of the node, goes ZERO
		pace := func() *rate.Limiter { return rate.NewLimiter(1e-9, size) } // what is taken of it does not come back
		taken := func(l *rate.Limiter) int64 { return size - int64(math.Round(l.Tokens())) }
		server, node, work := New(NewPool(0, Sizes{}), []v1.Descriptor{d}), pace(), sync.WaitGroup{}
		server.Arrive(nil, func(int) (int64, bool) { return 0, true })
		one := newLimitedHop(t, d, feed(t, server, 1, false, wire.LinkHello{Padded: true, Zeros: c.out}), node, &work)
		two := newHop(t, d, feed(t, one.relay, 2, false, wire.LinkHello{Padded: true, Zeros: c.in}), &work)
		p := &Pump{Relay: server, Blobs: []int{0}, Limit: pace(), Open: func(context.Context, v1.Descriptor, int64) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(make([]byte, size))), nil
		}}
		work.Go(func() {
			s := &Store{Relay: server, Blobs: []int{0}, Sum: func(int, int64, []byte, bool) error { return nil }}
			if err := s.Run(t.Context()); err != nil {
				t.Error(err)
			}
		})
		if _, err := p.Run(t.Context()); err != nil {
			t.Error(err)
		}
		work.Wait()
		want := func(zeros bool) int64 {
			if zeros {
				return 0
			}
			return size
		}
		if got := taken(p.Limit); got != want(c.out) {
			t.Errorf("%+v: the limit of the server counts %d bytes, want %d", c, got, want(c.out))
		}
		if got := taken(node); got != want(c.in && c.out) {
			t.Errorf("%+v: the limit of the node counts %d bytes, want %d", c, got, want(c.in && c.out))
		}
		for _, r := range []*Relay{server, one.relay, two.relay} {
			r.Close(ErrClosed)
			r.Release()
		}
	}
}

// A node that has passed on the promise of a DATA frame keeps it in bytes where a ZERO comes instead, so that its successor
// does not sleep. Nothing comes behind.
func TestPromiseIsKept(t *testing.T) {
	d := v1.Descriptor{MediaType: leaf.MediaType, Size: 4 << 20}
	for _, secure := range []bool{false, true} {
		feeder := New(NewPool(0, Sizes{}), []v1.Descriptor{d})
		feeder.Arrive(nil, func(int) (int64, bool) { return 0, true })
		var work sync.WaitGroup
		next := newHop(t, d, feed(t, feeder, 1, secure, wire.LinkHello{Padded: true, Zeros: true}), &work)
		buf, err := feeder.reserve(200_000)
		if err != nil {
			t.Fatal(err)
		}
		copy(buf, random(1, len(buf)))
		var hdr [wire.HeaderSize]byte
		wire.PutDataMore(&hdr, 0, 0, buf)
		feeder.put(&hdr, buf, 0, 0)
		arrived := func(n int64) { // ends with the test's time limit
			for at := int64(0); at < n; runtime.Gosched() {
				next.relay.mu.Lock()
				at = next.relay.blobs[0].recv
				next.relay.mu.Unlock()
			}
		}
		arrived(200_000)
		wire.PutZero(&hdr, 0, 200_000, 3_000_000)
		feeder.publish(frame{hdr: hdr, n: 3_000_000, off: 200_000})
		arrived(3_200_000)
		wire.PutZero(&hdr, 0, 3_200_000, 4<<20-3_200_000)
		feeder.publish(frame{hdr: hdr, n: 4<<20 - 3_200_000, off: 3_200_000})
		work.Wait()
		if sent := feeder.Sent(); sent < 400_000 || sent > 500_000 {
			t.Errorf("tls %v: %d bytes were sent", secure, sent)
		}
	}
}

// Zeros are refused where they may not come: on a link that has none, and of a blob that is not in leaves.
func TestZerosRefused(t *testing.T) {
	in := v1.Descriptor{MediaType: leaf.MediaType, Size: 1 << 20}
	more := func(h *[wire.HeaderSize]byte) { wire.PutDataMore(h, 0, 0, nil); h[19] = 1 }
	zero := func(h *[wire.HeaderSize]byte) { wire.PutZero(h, 0, 0, 1<<20) }
	for name, c := range map[string]struct {
		hello wire.LinkHello
		d     v1.Descriptor
		put   func(*[wire.HeaderSize]byte)
		bad   bool
	}{
		"good":         {wire.LinkHello{Padded: true, Zeros: true}, in, zero, false},
		"old link":     {wire.LinkHello{Padded: true}, in, zero, true},
		"flag":         {wire.LinkHello{Padded: true}, in, more, true},
		"no leaves":    {wire.LinkHello{Padded: true, Zeros: true}, v1.Descriptor{Size: 1 << 20}, zero, true},
		"damaged":      {wire.LinkHello{Padded: true, Zeros: true}, in, func(h *[wire.HeaderSize]byte) { zero(h); h[20] ^= 1 }, true},
		"unknown blob": {wire.LinkHello{Padded: true, Zeros: true}, in, func(h *[wire.HeaderSize]byte) { wire.PutZero(h, 7, 0, 1<<20) }, true},
	} {
		w, r := pairOf(t, false, c.hello)
		var hdr [wire.HeaderSize]byte
		c.put(&hdr)
		w.writeFrame(&hdr, nil, nil)
		wire.PutFin(&hdr)
		w.writeFrame(&hdr, nil, nil)
		relay := New(NewPool(0, Sizes{}), []v1.Descriptor{c.d})
		relay.Arrive(nil, func(int) (int64, bool) { return 0, true })
		accepted := false
		_, err := relay.Receive(t.Context(), r, nil, func(wire.Header) bool { accepted = true; return true })
		if accepted == c.bad || (err != nil) != c.bad {
			t.Errorf("%s: accepted %v, %v", name, accepted, err)
		}
		relay.Close(ErrClosed)
		relay.Release()
	}
}

// What is acknowledged of zeros is told once bytes of their header may be, and all of it in the end.
func TestZeroAcks(t *testing.T) {
	var z zeroAcks
	z.wrote(wire.HeaderSize + 1000)
	z.zeros(5_000_000)
	z.wrote(wire.HeaderSize + 100_000)
	for range 10_000 {
		z.zeros(4 << 20)
	}
	for _, c := range []struct{ acked, want int64 }{
		{0, 0}, {1024, 1024}, {1025, 5_001_025}, {101_072, 5_101_072}, {1 << 20, 1<<20 + 5_000_000 + 10_000*4<<20},
	} {
		if got := z.with(c.acked); got != c.want {
			t.Errorf("%d acknowledged: %d, want %d", c.acked, got, c.want)
		}
	}
	for range 100_000 {
		z.zeros(4 << 20)
	}
	if len(z.runs) > 100_000*wire.HeaderSize/ackUnit+1 {
		t.Errorf("%d runs are kept", len(z.runs))
	}
}

// The window holds a bounded number of runs of zeros, also when nothing else comes.
func TestWindowBoundsZeros(t *testing.T) {
	r := testRelay(t, nil)
	off := fill(t, r, 0, 10, 1<<20)
	for range 5 * maxZeros {
		if err := r.reserveZero(); err != nil {
			t.Fatal(err)
		}
		if err := r.publish(frame{n: 4 << 20, off: off}); err != nil {
			t.Fatal(err)
		}
		off += 4 << 20
	}
	if len(r.win.frames) > maxZeros || r.win.chunks > 1 {
		t.Errorf("%d frames and %d chunks are kept", len(r.win.frames), r.win.chunks)
	}
	fill(t, r, off, 10, 1<<20)
}

func BenchmarkFirstRun(b *testing.B) {
	for name, data := range map[string][]byte{"data": random(1, 1<<20), "zeros": make([]byte, 1<<20)} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				firstRun(data, 0, 64<<10)
			}
		})
	}
}
