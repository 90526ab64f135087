package ring

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// Each time of timings.go under fake time, beside those of timers_test.go. The numbers are
// written out: whoever changes one of them is to see here what it decides.

// paced is a source of one blob that takes so long.
func paced(size int, takes time.Duration) *memSource {
	src := newMemSource(true, random(1, size))
	last := int64(0)
	src.read = func(_ int, off int64) {
		if off > last {
			time.Sleep(takes * time.Duration(off-last) / time.Duration(size))
			last = off
		}
	}
	return src
}

// within says by which a time that hangs on reports and ticks may be later: a report tells of
// the second before it, and the coordinator looks four times a second.
const within = 1250 * time.Millisecond

func between(t *testing.T, what string, got, from, to time.Duration) {
	t.Helper()
	if got < from || got > to {
		t.Errorf("%s after %v, want %v to %v", what, got, from, to)
	}
}

// A control connection that breaks, of a node that then does not answer: lost after 1 s.
func TestResumeLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := paced(8<<20, 10*time.Second)
		c := newMemCluster(t, src)
		a, _ := c.node("a:1")
		c.node("b:1")
		time.AfterFunc(2*time.Second, func() { c.net.Reset("server", "b", 0) })
		c.dialing = func(ctx context.Context, addr string, nth int) {
			if addr == "b:1" && nth > 1 {
				<-ctx.Done()
			}
		}
		r, err := c.send()
		if err != nil {
			t.Fatal(err)
		}
		at, _ := c.when("b:1", "lost during the transfer: no answer")
		near(t, "lost", at-2*time.Second, time.Second)
		a.check(t, r.Nodes[0], src.blobs...)
	})
}

// A node that died is dialled every 2 s; as soon as it is there again it is served.
func TestRedial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := paced(8<<20, 12*time.Second)
		c := newMemCluster(t, src)
		c.cfg.Retries = 1
		a, _ := c.node("a:1")
		c.node("b:1")
		back := make(chan *testNode, 1)
		time.AfterFunc(time.Second, func() { c.net.Kill("b") })
		time.AfterFunc(6500*time.Millisecond, func() {
			b, _ := c.start("b:1")
			back <- b
		})
		r, err := c.send()
		if err != nil {
			t.Fatal(err)
		}
		var got []time.Duration // of those after the loss; the first is resume
		for _, d := range c.dials["b:1"] {
			if d >= time.Second {
				got = append(got, d.Truncate(time.Second/10))
			}
		}
		if want := []time.Duration{time.Second, 3 * time.Second, 5 * time.Second, 7 * time.Second}; !slices.Equal(got, want) {
			t.Errorf("dialled after %v, want %v", got, want)
		}
		a.check(t, r.Nodes[0], src.blobs...)
		(<-back).check(t, r.Nodes[1], src.blobs...)
		if r.Count() != 2 || !strings.HasPrefix(r.Nodes[1].Reason, "came back: ") {
			t.Errorf("%+v", r.Nodes)
		}
	})
}

// A node that was not there at the start is dialled every 2 s, too, and served.
func TestLateNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := paced(8<<20, 12*time.Second)
		c := newMemCluster(t, src)
		c.node("a:1")
		c.name("late:1")
		late := make(chan *testNode, 1)
		time.AfterFunc(5*time.Second, func() {
			n, _ := c.start("late:1")
			late <- n
		})
		r, err := c.send()
		if err != nil {
			t.Fatal(err)
		}
		dials := c.dials["late:1"]
		near(t, "dialled last", dials[len(dials)-1], 6*time.Second)
		(<-late).check(t, r.Nodes[1], src.blobs...)
		if len(dials) != 4 || r.Count() != 2 {
			t.Errorf("%d dials, %+v", len(dials), r.Nodes)
		}
	})
}

// A node that comes back while its COMMIT is asked after counts by what it says then.
func TestCommitConfirmedLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newMemSource(true, random(1, 300_000))
		c := newMemCluster(t, src)
		a, _ := c.node("a:1")
		a.node.config().Accept = func(context.Context, Request) (Sink, error) {
			return hookSink{a.sink, func() { c.net.Reset("server", "a", 0) }}, nil
		}
		back := time.Now().Add(13 * time.Second)
		c.dialing = func(ctx context.Context, _ string, nth int) {
			if nth > 2 { // control and the link
				select {
				case <-time.After(time.Until(back)):
				case <-ctx.Done():
				}
			}
		}
		r, err := c.send()
		if err != nil {
			t.Fatal(err)
		}
		near(t, "confirmed", time.Since(c.begun), 13*time.Second)
		a.check(t, r.Nodes[0], src.blobs...)
		if r.Count() != 1 {
			t.Errorf("%+v", r.Nodes)
		}
	})
}

// hookSink calls a function when it was published.
type hookSink struct {
	*memSink
	published func()
}

func (s hookSink) Publish(ctx context.Context) error {
	defer s.published()
	return s.memSink.Publish(ctx)
}

// A server that says nothing any more is missed after 5 s, and waited for another 15.
func TestSilentServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := paced(8<<20, time.Minute)
		c := newMemCluster(t, src)
		a, _ := c.node("a:1")
		time.AfterFunc(time.Second, func() { c.net.Freeze("server") })
		done := make(chan *Report)
		go func() {
			r, _ := c.send()
			done <- r
		}()
		o := <-a.outcomes
		between(t, "given up", time.Since(c.begun)-time.Second, 19*time.Second, 20*time.Second+time.Second/10)
		if o.State != Failed || !strings.Contains(o.Err.Error(), "lost the server") {
			t.Errorf("%+v", o)
		}
		c.net.Thaw("server")
		if r := <-done; r.Nodes[0].State != Failed || a.sink.published > 0 {
			t.Errorf("%+v", r.Nodes)
		}
	})
}

// A target that another transfer has makes a new one wait 20 s, then it is refused, by whom;
// one whose server is gone yields at once.
func TestBusyTarget(t *testing.T) {
	for _, orphan := range []time.Duration{-1, 0, 7 * time.Second} {
		t.Run(fmt.Sprint("server gone after ", orphan), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { busyTarget(t, orphan) })
		})
	}
}

func busyTarget(t *testing.T, orphan time.Duration) {
	first := paced(8<<20, time.Minute) // a frame takes less than a sender that ends waits for its read
	c := newMemCluster(t, first)
	a, _ := c.node("a:1")
	sinks := []*memSink{a.sink, newMemSink()}
	a.outcomes = make(chan Outcome, 2)
	var accepted []Request
	a.node.config().Accept = func(_ context.Context, r Request) (Sink, error) {
		for i, old := range accepted {
			if sinks[i].closes() == 0 {
				return nil, fmt.Errorf("transfer %s writes to it: %w", old.Transfer, ErrBusy)
			}
		}
		accepted = append(accepted, r)
		return sinks[len(accepted)-1], nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	s, err := newSender(c.cfg)
	if err != nil {
		t.Fatal(err)
	}
	var dials atomic.Int32
	s.net.dial = func(ctx context.Context, addr string) (net.Conn, error) {
		if dials.Add(1) > 2 { // control and the link
			<-ctx.Done()
		}
		return c.net.Host("other").Dial(ctx, addr)
	}
	done := make(chan bool)
	go func() {
		defer close(done)
		s.run(ctx)
	}()
	synctest.Wait()
	switch {
	case orphan == 0:
		c.net.Reset("other", "a", 0)
		synctest.Wait()
	case orphan > 0:
		time.AfterFunc(orphan, func() { c.net.Reset("other", "a", 0) })
	}
	c.cfg.Source = newMemSource(true, random(2, 1000))
	r, err := c.send()
	if err != nil {
		t.Fatal(err)
	}
	row := r.Nodes[0]
	if orphan >= 0 {
		near(t, "committed", time.Since(c.begun), orphan)
		if row.State != Committed || sinks[0].published > 0 || sinks[1].published != 1 {
			t.Errorf("%+v", row)
		}
	} else {
		near(t, "refused", time.Since(c.begun), 20*time.Second)
		if row.State != Refused || !strings.Contains(row.Reason, s.id.String()) || r.Status(err, 0) != ExitRefused {
			t.Errorf("%+v", row)
		}
	}
	cancel()
	<-done
}

func (s *memSink) closes() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// A node that says it waits for another transfer, and then nothing, is failed after 25 s.
func TestOfferNotAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newMemSource(true, random(1, 1000))
		c := newMemCluster(t, src)
		a, _ := c.node("a:1")
		c.puppet("b:1", greets(func(m wire.Message) []wire.Message {
			switch m.(type) {
			case *wire.Offer:
				return []wire.Message{&wire.Report{Wait: wire.WaitBusy, Links: []wire.Sending{}}}
			case *wire.Ping:
				return []wire.Message{&wire.Pong{}}
			}
			return nil
		}))
		r, err := c.send()
		if err != nil {
			t.Fatal(err)
		}
		at, _ := c.when("b:1", "did not answer the offer")
		between(t, "failed", at, 25*time.Second, 25*time.Second+timings.tickEvery)
		a.check(t, r.Nodes[0], src.blobs...)
	})
}
