package coordinator

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/dolly-img/dolly-img/ring/leaf"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

const comparedLeaves = 800

// comparingWith returns a coordinator of an update of 800 leaves that has asked nodes to compare, which have so many free bytes each.
func comparingWith(t *testing.T, free ...int64) *Machine {
	t.Helper()
	cfg := Config{MarkEvery: leaf.Size, Compare: true}
	for i := range free {
		cfg.Nodes = append(cfg.Nodes, Peer{Name: fmt.Sprint("n", i+1)})
	}
	c := New(cfg, []v1.Descriptor{{MediaType: leaf.MediaType, Size: comparedLeaves * leaf.Size}})
	for i := range free {
		c.Step(EvWelcome{Node: i + 1, Instance: wire.ID{byte(i + 1)}, State: wire.StateNew, Version: wire.Version})
	}
	asked := 0
	for i, n := range free {
		for _, a := range c.Step(EvAnswer{Node: i + 1, Held: []int64{0}, Free: n, Replay: true}) {
			if s, ok := a.(ActSend); ok {
				if _, ok := s.Msg.(*wire.Compare); ok {
					asked++
				}
			}
		}
	}
	if asked != len(free) {
		t.Fatalf("%d of %d nodes were asked to compare", asked, len(free))
	}
	return c
}

// hasCompared has a node say that all of its leaves but the first few are right.
func hasCompared(c *Machine, i int, lacks int) {
	set := bytes.Repeat([]byte{0xff}, comparedLeaves/8)
	clear(set[:lacks/8])
	c.Step(EvCompared{Node: i, Leaves: []wire.Leaves{{Set: set}}, Bytes: comparedLeaves * leaf.Size})
}

// until has time pass in ticks while each calls what nodes report.
func until(c *Machine, from, to time.Duration, each func(now time.Duration)) {
	for now := from; now <= to; now += time.Second {
		c.Step(EvTick{Now: now})
		each(now)
	}
}

// A node that compares needs room for what it lacks and no more; it is judged when that is known.
func TestCompareRoom(t *testing.T) {
	c := comparingWith(t, 80*leaf.Size, 80*leaf.Size-1, -1)
	hasCompared(c, 1, 80)
	hasCompared(c, 2, 80)
	hasCompared(c, 3, 80)
	for i, want := range map[int]State{1: Pending, 2: Failed, 3: Pending} {
		if r := c.Row(i); r.State != want || (want == Failed) != (r.Cause.Kind == KindSpace) {
			t.Errorf("node %d: %s, %v", i, r.State, r.Cause)
		}
	}
}

// A node that gets on is waited for, also where others had nothing to compare. One that is much slower than the first, or crawls,
// is not.
func TestComparePatience(t *testing.T) {
	const size = comparedLeaves * leaf.Size
	for name, tt := range map[string]struct {
		quick func(c *Machine) // what node 1 does after a second
		rate  int64            // leaves per second of node 2
		until time.Duration    // when the transfer starts
	}{
		"nothing to compare":    {func(c *Machine) { c.Step(EvCompared{Node: 1}) }, 4, 201 * time.Second},
		"much less to compare":  {func(c *Machine) { c.Step(EvCompared{Node: 1, Bytes: comparedLeaves / 100 * leaf.Size}) }, 4, 201 * time.Second},
		"all of it differs":     {func(c *Machine) { hasCompared(c, 1, comparedLeaves) }, 4, 12 * time.Second},
		"much slower":           {func(c *Machine) { hasCompared(c, 1, 0) }, 4, 12 * time.Second},
		"crawls, beside nobody": {func(c *Machine) { c.Step(EvCompared{Node: 1}) }, 0, 60 * time.Second},
	} {
		c := comparingWith(t, -1, -1)
		started := time.Duration(0)
		until(c, time.Second, 5*time.Minute, func(now time.Duration) {
			switch {
			case now == time.Second:
				c.Step(EvCompareRead{})
				tt.quick(c)
			case c.started:
			case now == 202*time.Second:
				hasCompared(c, 2, 8)
			default:
				good := min(size, int64(now/time.Second)*tt.rate*leaf.Size)
				if tt.rate == 0 { // a leaf in ten seconds
					good = int64(now/(10*time.Second)) * leaf.Size
				}
				c.Step(EvReport{Node: 2, Report: wire.Report{Good: good}})
				if p := c.Progress(); !c.started && (p.Compares != 1 || p.Compared != good) {
					t.Fatalf("%s: after %v %d nodes compare, %d bytes", name, now, p.Compares, p.Compared)
				}
			}
			if c.started && started == 0 {
				started = now
			}
		})
		if d := started - tt.until; d < 0 || d > 2*time.Second {
			t.Errorf("%s: started after %v, want %v", name, started, tt.until)
		}
	}
}

// A node that never heard that it should compare, because its connection was broken until the start, says nothing of that. What it
// reports counts once it says what it needs.
func TestCompareNotHeard(t *testing.T) {
	c := comparingWith(t, -1, -1)
	needs := func(i int) {
		x := c.nodes[i].feed
		c.Step(EvNeed{i, x.link, x.gen, [][2]int64{{0, 0}}, nil})
		c.Step(EvLink{c.nodes[i].feed.feeder, x.link, x.gen, wire.LinkUp, wire.CodeNone, ""})
	}
	until(c, time.Second, 40*time.Second, func(now time.Duration) {
		switch {
		case now == time.Second:
			c.Step(EvCompareRead{})
			hasCompared(c, 1, comparedLeaves)
			c.Step(EvControlLost{Node: 2})
		case !c.started:
		case c.nodes[2].contact.resuming:
			c.Step(EvResumed{Node: 2, Instance: wire.ID{2}, State: wire.StateRunning})
			needs(1)
			needs(2)
		default:
			for i := 1; i <= 2; i++ {
				c.Step(EvReport{Node: i, Report: wire.Report{Received: int64(now), Wait: wire.WaitIn}})
			}
		}
	})
	if r := c.Row(2); !c.started || r.State != Serving {
		t.Errorf("started: %v, %s, %v", c.started, r.State, r.Cause)
	}
}
