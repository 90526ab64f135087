package warm

import (
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"
)

var (
	simSeeds = flag.Int("sim.seeds", 1, "how many weeks TestSim lives through")
	simFirst = flag.Uint64("sim.first", 4, "the first seed")
	simNodes = flag.Int("sim.nodes", 0, "nodes of the cluster; 0 is as many as a test may cost")
	simDays  = flag.Int("sim.days", 3, "how long a week is")
	simRound = flag.Duration("sim.catchup", 5*time.Minute, "catch-up")
)

func (w *world) watch() {
	w.check.look(w)
	w.after(4*time.Minute, w.watch)
}

// live through a week, and see that all is warm at its end.
func (w *world) week() string {
	w.start(false)
	w.faults()
	w.after(time.Minute+time.Second, w.watch) // not at the second at which windows open and close
	w.run(w.quiet)
	if w.m == nil {
		w.start(true)
	}
	for _, n := range w.order {
		n.broken, n.flapping = false, false
		n.rise(w, false)
	}
	w.wall = time.Date(2026, 4, 4, 12, 0, 0, 0, time.UTC).Add(-w.now) // a Saturday
	w.run(w.quiet + 6*time.Hour)
	if w.check.wrong == "" {
		for _, i := range w.m.Snapshot(w.clock()).Images {
			if i.State != ImageWarm || i.Warm != len(i.Nodes) || len(i.Nodes) < len(w.order)/3 || i.Stale != "" {
				w.check.fail(w, "%s is %s at the end, %d of %d, stale %q", i.Ref, i.State, i.Warm, len(i.Nodes), i.Stale)
				for _, n := range i.Nodes {
					if n.State != NodeWarm {
						w.check.wrong += fmt.Sprintf("\n%+v", n)
					}
				}
			}
		}
		w.each(func(n *simNode, name, ref, platform string) {
			if !n.holds(name, w.tags[ref+platform]) {
				w.check.fail(w, "%s lacks %s at the end", n.name, ref)
			}
		})
		if !slices.Equal(w.check.tagsOf[simTags], w.tagsOf[simTags]) {
			w.check.fail(w, "the tags are %q, and not %q", w.check.tagsOf[simTags], w.tagsOf[simTags])
		}
		rounds := int(w.now/w.list.CatchUp) + 300
		for node, asks := range w.check.asks {
			if asks > rounds*2 {
				w.check.fail(w, "%s was asked %d times, of %d rounds", node, asks, rounds)
			}
		}
	}
	return w.check.wrong
}

// A week of faults breaks none of the promises.
func TestSim(t *testing.T) {
	nodes := *simNodes
	if nodes == 0 {
		nodes = map[bool]int{false: 60, true: 20}[raceDetector]
	}
	for seed := *simFirst; seed < *simFirst+uint64(*simSeeds); seed++ {
		w := newWorld(seed, nodes, *simRound)
		if w.quiet = time.Duration(*simDays)*24*time.Hour - 6*time.Hour; *simDays < 5 {
			w.wall = w.wall.AddDate(0, 0, 2) // so that the clocks still change
		}
		if wrong := w.week(); wrong != "" {
			t.Errorf("seed %d: %s", seed, wrong)
		}
		t.Logf("seed %d: %d pushes, %d warm at most", seed, w.check.pushes, w.check.warmest)
		if w.check.warmest < nodes/2 || w.check.pushes < 30 {
			t.Errorf("seed %d: nothing happened", seed)
		}
	}
}
