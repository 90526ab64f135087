package ring

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// The times of links, storage and slow nodes, as in detect_test.go.

// A link on which nothing moves is down after 3 s: dialled again once, which has 2 s, then
// routed around. Neither of its nodes is lost.
func TestStalledLink(t *testing.T) {
	for _, cut := range []bool{false, true} {
		t.Run(fmt.Sprint("cut ", cut), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src := paced(16<<20, 16*time.Second)
				c := newMemCluster(t, src)
				a, _ := c.node("a:1")
				b, _ := c.node("b:1")
				time.AfterFunc(2500*time.Millisecond, func() {
					c.net.Stall("a", "b", 0)
					if cut {
						c.net.Cut("a", "b")
					}
				})
				r, err := c.send()
				if err != nil {
					t.Fatal(err)
				}
				const link = "a:1 -> b:1"
				down, _ := c.when(link, "down: nothing moved for 3s")
				between(t, "down", down-2500*time.Millisecond, 3*time.Second-within, 3*time.Second+within)
				var made []string // links into b after that
				var at []time.Duration
				first := slices.IndexFunc(c.events, func(ev Event) bool { return strings.HasPrefix(ev.Reason, "down: ") })
				for _, ev := range c.events[first+1:] {
					if ev.Kind == EventLink && strings.HasSuffix(ev.Link, "-> b:1") {
						made, at = append(made, ev.Link+" "+ev.Reason), append(at, ev.Time.Sub(c.begun)-down)
					}
				}
				if !cut {
					if len(made) != 1 || made[0] != link+" up" {
						t.Errorf("then %v", made)
					}
				} else if len(made) == 2 && strings.HasPrefix(made[0], link+" down") && made[1] == "server -> b:1 up" {
					near(t, "the second dial", at[0], 2*time.Second)
					near(t, "round it", at[1], 2*time.Second)
				} else {
					t.Errorf("then %v", made)
				}
				a.check(t, r.Nodes[0], src.blobs...)
				b.check(t, r.Nodes[1], src.blobs...)
				if r.Count() != 2 {
					t.Errorf("%+v", r.Nodes)
				}
			})
		})
	}
}

// slowSink stands before a memSink without holding its mutex.
type slowSink struct {
	*memSink
	write func(n int) // before each write, and with 0 before the commit
}

func (s slowSink) Begin(ctx context.Context, d v1.Descriptor, off int64) (Writer, error) {
	w, err := s.memSink.Begin(ctx, d, off)
	return slowWriter{w, s.write}, err
}

type slowWriter struct {
	Writer
	write func(n int)
}

func (w slowWriter) Write(p []byte) (int, error) {
	w.write(len(p))
	return w.Writer.Write(p)
}

func (w slowWriter) Commit(ctx context.Context, d v1.Descriptor) error {
	w.write(0)
	return w.Writer.Commit(ctx, d)
}

// A disk that does not take anything any more fails its node after 60 s, also when everything
// has arrived.
func TestHungDisk(t *testing.T) {
	for _, hang := range []string{"write", "write of much", "commit"} {
		t.Run(hang, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				size := 300_000
				if hang == "write of much" {
					size = 48 << 20
				}
				src := newMemSource(true, random(1, size))
				c := newMemCluster(t, src)
				c.cfg.Straggler = Wait
				stuck := make(chan struct{})
				defer close(stuck)
				a, _ := c.node("a:1")
				b, _ := c.node("b:1")
				b.node.config().Accept = func(context.Context, Request) (Sink, error) {
					return slowSink{b.sink, func(n int) {
						if (n == 0) == (hang == "commit") {
							<-stuck
						}
					}}, nil
				}
				r, err := c.send()
				if err != nil {
					t.Fatal(err)
				}
				at, _ := c.when("b:1", "hangs: less than 960 KiB were stored in 1m0s (disk)")
				between(t, "failed", at, time.Minute, time.Minute+within)
				a.check(t, r.Nodes[0], src.blobs...)
				b.check(t, r.Nodes[1], src.blobs...)
			})
		})
	}
}

// steppingWriter has much to make durable, and the disk takes a step of it at a time.
type steppingWriter struct {
	slowWriter
	steps int
	step  func()
}

func (w steppingWriter) Flush(ctx context.Context, done func(int64)) error {
	for range w.steps {
		w.step()
		done(512 << 10)
	}
	return ctx.Err()
}

type steppingSink struct {
	slowSink
	steps int
	step  func()
}

func (s steppingSink) Begin(ctx context.Context, d v1.Descriptor, off int64) (Writer, error) {
	w, err := s.memSink.Begin(ctx, d, off)
	return steppingWriter{slowWriter{w, s.write}, s.steps, s.step}, err
}

// A disk that gets on is no fault, however long it takes for all: with one large blob that it makes durable step by
// step, and with many small ones, of which it makes one durable at a time.
func TestSlowDisk(t *testing.T) {
	for name, c := range map[string]struct {
		blobs, size, steps int
		step, commit       time.Duration
	}{
		"one large blob":   {1, 4 << 20, 8, 25 * time.Second, 0},
		"many small blobs": {200, 1000, 0, 0, 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var blobs [][]byte
				for k := range c.blobs {
					blobs = append(blobs, random(uint64(k+1), c.size))
				}
				src := newMemSource(true, blobs...)
				cl := newMemCluster(t, src)
				a, _ := cl.node("a:1")
				b, _ := cl.node("b:1")
				disk := make(chan struct{}, 1)
				b.node.config().Accept = func(context.Context, Request) (Sink, error) {
					return steppingSink{slowSink{b.sink, func(n int) {
						if n == 0 {
							disk <- struct{}{}
							time.Sleep(c.commit)
							<-disk
						}
					}}, c.steps, func() { time.Sleep(c.step) }}, nil
				}
				begun := time.Now()
				r, err := cl.send()
				if err != nil {
					t.Fatal(err)
				}
				if took := time.Since(begun); took < 3*time.Minute {
					t.Errorf("took only %v", took)
				}
				a.check(t, r.Nodes[0], src.blobs...)
				b.check(t, r.Nodes[1], src.blobs...)
				if r.Count() != 2 {
					t.Errorf("%+v", r.Nodes)
				}
			})
		})
	}
}

// Dial, TLS and hello of a link have 2 s together; of several addresses a dead one leaves
// time for the next.
func TestLinkTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, newMemSource(true, nil))
		net1 := transport{dial: c.net.Host("a").Dial}
		for _, name := range []string{"mute", "frozen"} {
			l := c.net.Listen(name + ":1")
			defer l.Cut()
			defer l.Close()
			go func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					go io.Copy(io.Discard, conn)
				}
			}()
		}
		c.net.Freeze("frozen")
		for _, addr := range []string{"mute:1", "frozen:1"} {
			start := time.Now()
			_, err := net1.openLink(t.Context(), []string{addr}, c.cfg.DataTLS("mute"), wire.LinkHello{}, secret())
			if !isTimeout(err) && !errors.Is(err, net.ErrClosed) && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: %v", addr, err)
			}
			near(t, addr, time.Since(start), 2*time.Second)
		}
	})
}

// A slow disk is found by three looks in a row, a second apart, once there are reports.
func TestSlowLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 64 << 20
		src := paced(size, 2*time.Second)
		c := newMemCluster(t, src)
		var nodes []*testNode
		for i, name := range []string{"a:1", "b:1", "c:1", "d:1"} {
			n, _ := c.node(name)
			takes := time.Microsecond // so that what it could write is known
			if i == 1 {
				takes = 300 * time.Millisecond
			}
			n.node.config().Accept = func(context.Context, Request) (Sink, error) {
				return slowSink{n.sink, func(k int) { time.Sleep(takes * time.Duration(k) / (256 << 10)) }}, nil
			}
			nodes = append(nodes, n)
		}
		r, err := c.send()
		if err != nil {
			t.Fatal(err)
		}
		at, why := c.when("b:1", "slow: ")
		between(t, "found", at, 3*time.Second, 5*time.Second)
		if !strings.Contains(why, "disk") {
			t.Error(why)
		}
		for i, n := range nodes {
			n.check(t, r.Nodes[i], src.blobs...)
		}
		if r.Count() != 4 || r.Digest != digest.FromBytes(src.blobs[0]).String() {
			t.Errorf("%+v", r.Nodes)
		}
	})
}
