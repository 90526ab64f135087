package ring

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// overwriter is a Sink that says what it overwrites.
type overwriter struct {
	*memSink
	node   *testNode
	target atomic.Value // string
	begun  atomic.Int32
}

func (s *overwriter) Target(context.Context) (json.RawMessage, error) {
	if text := s.target.Load().(string); text != "" {
		return json.RawMessage(text), nil
	}
	return nil, errors.New("the disk is gone")
}

func (s *overwriter) Begin(ctx context.Context, d v1.Descriptor, off int64) (Writer, error) {
	s.begun.Add(1)
	return s.memSink.Begin(ctx, d, off)
}

// take has the node answer offers with s from now on.
func (n *testNode) take(t *testing.T, s Sink) {
	next := *n.node.config()
	next.Accept = func(context.Context, Request) (Sink, error) { return s, nil }
	if err := n.node.Reconfigure(next); err != nil {
		t.Fatal(err)
	}
}

// overwriters starts n nodes whose sinks say that they overwrite a disk.
func overwriters(c *memCluster, n int) (sinks []*overwriter) {
	for i := range n {
		tn, _ := c.node(fmt.Sprintf("%c:1", 'a'+i))
		s := &overwriter{memSink: tn.sink, node: tn}
		s.target.Store(fmt.Sprintf(` { "disk" : "<%d>" }`, i))
		tn.take(c.t, s)
		sinks = append(sinks, s)
	}
	return sinks
}

// Nothing is begun while somebody looks at the plan, however long that takes.
func TestPlanConfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newMemSource(true, random(1, 3<<20))
		c := newMemCluster(t, src)
		sinks := overwriters(c, 3)
		c.name("gone:1")
		c.cfg.Wait = 30 * time.Second
		c.cfg.Confirm = func(ctx context.Context, plan []Row) error {
			near(t, "closed", time.Since(c.begun), 30*time.Second)
			for i, row := range plan {
				want := fmt.Sprintf(`{"disk":"\u003c%d\u003e"}`, i)
				if i < 3 && (row.State != Pending || string(row.Facts) != want) || i == 3 && row.State != Unreachable {
					t.Errorf("%+v", row)
				}
			}
			time.Sleep(time.Hour)
			for _, s := range sinks {
				if s.begun.Load() > 0 {
					t.Error("a node began before the plan was confirmed")
				}
			}
			return ctx.Err()
		}
		r, err := c.send()
		if err != nil || r.Count() != 3 {
			t.Fatalf("%+v, %v", r, err)
		}
		for i, s := range sinks {
			if string(s.parts[0]) != string(src.blobs[0]) || string(r.Nodes[i].Facts) != fmt.Sprintf(`{"disk":"\u003c%d\u003e"}`, i) {
				t.Errorf("%+v", r.Nodes[i])
			}
		}
	})
}

// What is not confirmed is not begun, and is no failure of a node.
func TestPlanNotConfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newMemSource(true, random(1, 3<<20))
		c := newMemCluster(t, src)
		sinks := overwriters(c, 2)
		no := errors.New("nobody typed 2")
		c.cfg.Confirm = func(context.Context, []Row) error { return no }
		r, err := c.send()
		if !errors.Is(err, no) || r.Count() != 0 || r.Nodes[0].Code != "unplanned" {
			t.Errorf("%+v, %v", r, err)
		}
		synctest.Wait() // the nodes close their sinks once they have read why
		for _, s := range sinks {
			if s.begun.Load() > 0 || s.closed != 1 {
				t.Errorf("begun %d times, closed %d times", s.begun.Load(), s.closed)
			}
		}
	})
}

// An interrupt ends the transfer while somebody looks at the plan, and Confirm with it.
func TestPlanInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, newMemSource(true, random(1, 1000)))
		sinks := overwriters(c, 1)
		s, err := newSender(c.cfg)
		if err != nil {
			t.Fatal(err)
		}
		s.net.dial = c.net.Dial
		ctx, cancel := context.WithCancel(t.Context())
		s.cfg.Confirm = func(ctx context.Context, _ []Row) error {
			cancel()
			<-ctx.Done()
			return ctx.Err()
		}
		r, err := s.run(ctx)
		if r.Status(err, 0) != ExitInterrupted || sinks[0].begun.Load() > 0 {
			t.Errorf("%+v, %v", r, err)
		}
	})
}

// A node whose target is not any more what was confirmed writes nothing, and the others go on without it.
func TestPlanOutdated(t *testing.T) {
	for now, want := range map[string]string{`{"disk":"other"}`: `now it is {"disk":"other"}`, "": "the disk is gone"} {
		synctest.Test(t, func(t *testing.T) {
			src := newMemSource(true, random(1, 3<<20))
			c := newMemCluster(t, src)
			sinks := overwriters(c, 3)
			c.cfg.Confirm = func(context.Context, []Row) error {
				sinks[1].target.Store(now)
				return nil
			}
			r, err := c.send()
			if err != nil || r.Count() != 2 {
				t.Fatalf("%+v, %v", r, err)
			}
			if row := r.Nodes[1]; row.State != Failed || row.Code != "policy" || !strings.Contains(row.Reason, want) || sinks[1].begun.Load() > 0 {
				t.Errorf("%+v", row)
			}
		})
	}
}

// A node that would overwrite something takes part neither without a plan, nor where a check asks.
func TestPlanUnasked(t *testing.T) {
	for _, check := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			c := newMemCluster(t, newMemSource(true, random(1, 1000)))
			sinks := overwriters(c, 1)
			c.cfg.Check = check
			r, err := c.send()
			want := map[bool]State{false: Refused, true: Pending}[check]
			if err != nil || r.Nodes[0].State != want || sinks[0].begun.Load() > 0 || check && len(r.Nodes[0].Facts) == 0 {
				t.Errorf("check %v: %+v, %v", check, r.Nodes[0], err)
			}
		})
	}
}

// A node that refuses to have its target overwritten says why in a word, and its target is untouched, as is that of a node that was never
// reached or answers what nobody asked.
func TestPlanRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, newMemSource(true, random(1, 1000)))
		sinks := overwriters(c, 4)
		sinks[1].node.take(t, &refusing{sinks[1], &RefusedError{RefusesTooSmall, errors.New("too small")}})
		sinks[2].node.take(t, &refusing{sinks[2], syscall.EIO})
		sinks[3].node.take(t, sinks[3].memSink) // overwrites nothing
		c.name("gone:1")
		c.cfg.Confirm = func(context.Context, []Row) error { return nil }
		r, err := c.send()
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []Row{
			{State: Committed, Target: TargetComplete}, {State: Refused, Code: "too-small", Target: TargetUntouched}, {State: Failed, Code: "store", Target: TargetUntouched},
			{State: Refused, Code: "unplanned", Target: TargetUntouched}, {State: Unreachable, Code: "name", Target: TargetUntouched},
		} {
			got := r.Nodes[i]
			if got.State != want.State || got.Code != want.Code && i < 4 || got.Target != want.Target || (got.Cause.Fault == FaultDenied) != (i == 1) {
				t.Errorf("%+v, want %+v", got, want)
			}
		}
		c.cfg.Source = newMemSource(true)
		if r, _ = Send(t.Context(), c.cfg); r != nil && r.Nodes[0].Target != TargetUntouched {
			t.Errorf("without a source: %+v", r.Nodes[0])
		}
	})
}

// refusing is a Sink that takes no offer.
type refusing struct {
	*overwriter
	why error
}

func (s *refusing) Offer(context.Context, []v1.Descriptor) ([]int64, int64, error) {
	return nil, 0, s.why
}
