//go:build !race

package coordinator

import (
	"flag"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/opencontainers/go-digest"
)

var (
	exploreMost = flag.Int("explore.most", 100_000_000, "states the explorer looks at before it gives up")
	exploreDeep = flag.Bool("explore.deep", false, "farther from the order of moves than with every change")
	exploreFull = flag.Bool("explore.full", false, "2 losses of 3 nodes in any order, with a return, too: 44 million states, six minutes, 4 GB")
)

// TestExplore goes through the orders of moves of 3 nodes and a blob of two frames: through
// every one where the name says so, else through those that are a few moves away from one.
// It prints how many states there are, and the moves that led to a broken promise.
func TestExplore(t *testing.T) {
	var found atomic.Bool
	for _, s := range []struct {
		name  string
		nodes int
		short budget // with -short: the faults of TestMutants are all found so
		left  budget
		deep  int // delays with -explore.deep, if there are more
	}{
		{"3 nodes, any order", 3, budget{delays: anyOrder}, budget{delays: anyOrder}, 0},
		{"3 nodes, 2 losses", 3, budget{delays: 0, crashes: 2}, budget{delays: 3, crashes: 2}, 4},
		{"3 nodes, a loss, a return", 3, budget{delays: 1, crashes: 1, returns: 1}, budget{delays: 5, crashes: 1, returns: 1}, anyOrder},
		{"3 nodes, 2 losses, a return", 3, budget{delays: 0, crashes: 2, returns: 1}, budget{delays: 1, crashes: 2, returns: 1}, 2},
		{"3 nodes, control lost", 3, budget{delays: 1, cuts: 1}, budget{delays: 3, cuts: 1}, 4},
		{"3 nodes, changed bytes", 3, budget{delays: 1, flips: 1}, budget{delays: 5, flips: 1}, anyOrder},
		{"3 nodes, a loss, a return, changed bytes", 3, budget{delays: 0, crashes: 1, returns: 1, flips: 1}, budget{delays: 2, crashes: 1, returns: 1, flips: 1}, 3},
		{"2 nodes, any order, another name of the first", 3, budget{delays: 2, twins: 1}, budget{delays: anyOrder, twins: 1}, 0},
		{"2 nodes, another name of the first, a loss, a return", 3, budget{delays: 1, twins: 1, crashes: 1, returns: 1}, budget{delays: 3, twins: 1, crashes: 1, returns: 1}, 0},
		{"3 nodes, any order, the first two do not reach each other", 3, budget{delays: 1, walls: 1}, budget{delays: anyOrder, walls: 1}, 0},
		{"3 nodes, none reaches another", 3, budget{delays: 1, walls: 3}, budget{delays: 5, walls: 3}, anyOrder},
		{"3 nodes, none reaches another, a loss, a return", 3, budget{delays: 0, walls: 3, crashes: 1, returns: 1}, budget{delays: 2, walls: 3, crashes: 1, returns: 1}, 0},
		{"3 nodes, the first lies twice", 3, budget{delays: 0, liar: 1, lies: 2}, budget{delays: 3, liar: 1, lies: 2}, 0},
		{"3 nodes, the second lies twice", 3, budget{delays: 0, liar: 2, lies: 2}, budget{delays: 3, liar: 2, lies: 2}, 0},
		{"3 nodes, the last lies twice", 3, budget{delays: 0, liar: 3, lies: 2}, budget{delays: 3, liar: 3, lies: 2}, 0},
		{"3 nodes, claims, of which some are wrong", 3, budget{delays: 1, sets: 1}, budget{delays: anyOrder, sets: 1}, 0},
		{"3 nodes, claims, of which some are wrong, a loss, a return", 3, budget{delays: 0, sets: 1, crashes: 1, returns: 1}, budget{delays: 3, sets: 1, crashes: 1, returns: 1}, 0},
		{"3 nodes, two lack the same leaf, changed bytes", 3, budget{delays: 0, sets: 2, flips: 1}, budget{delays: 7, sets: 2, flips: 1}, 0},
		{"3 nodes, they compare", 3, budget{delays: 1, sets: xCompare}, budget{delays: anyOrder, sets: xCompare}, 0},
		{"3 nodes, they compare, a loss, a return", 3, budget{delays: 0, sets: xCompare, crashes: 1, returns: 1}, budget{delays: 4, sets: xCompare, crashes: 1, returns: 1}, 0},
		{"3 nodes, they compare, control lost", 3, budget{delays: 0, sets: xCompare, cuts: 1}, budget{delays: 4, sets: xCompare, cuts: 1}, 0},
		{"3 nodes, they compare, one joins late", 3, budget{delays: 1, sets: xCompare, late: 1, returns: 1}, budget{delays: anyOrder, sets: xCompare, late: 1, returns: 1}, 0},
		{"3 nodes, they compare, one never does, a loss", 3, budget{delays: 0, sets: xCompare, stuck: 2}, budget{delays: 4, sets: xCompare, stuck: 2, crashes: 1}, 0},
		{"2 nodes, 2 losses, a return", 2, budget{delays: 1, crashes: 2, returns: 1}, budget{delays: 6, crashes: 2, returns: 1}, anyOrder},
		{"2 nodes, any order, changed bytes", 2, budget{delays: 2, flips: 1}, budget{delays: anyOrder, flips: 1}, 0},
	} {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			if testing.Short() {
				s.left = s.short
			} else if *exploreFull && s.left.crashes == 2 {
				s.left.delays = anyOrder
			} else if *exploreDeep || *exploreFull {
				s.left.delays = max(s.left.delays, s.deep)
			}
			if s.left.ticks = 12; s.left.lies > 0 {
				s.left.ticks = anyOrder // pass has an end of its own
			} else if s.left.stuck > 0 {
				s.left.ticks = 24
			}
			if testing.Short() && found.Load() {
				t.Skip("one broken promise is enough for a mutant")
			}
			n, trace, err := explore(newWorld(s.nodes, s.left), *exploreMost, nil)
			t.Logf("%d states", n)
			if err != nil {
				found.Store(true)
				t.Errorf("%v, after\n%s", err, strings.Join(trace, "\n"))
			}
		})
	}
}

// TestOwnWork compares how transfers can end when ownWork goes before everything else with
// how they can when it has no precedence, which is what makes many more states.
func TestOwnWork(t *testing.T) {
	for _, left := range []budget{{}, {crashes: 1}} {
		left.ticks, left.delays = 12, anyOrder
		var ends [2]map[string]bool
		for i := range ends {
			ends[i] = map[string]bool{}
			w := newWorld(2, left)
			w.patient = i == 1
			n, trace, err := explore(w, *exploreMost, ends[i])
			if err != nil {
				t.Errorf("%v, after\n%s", err, strings.Join(trace, "\n"))
			}
			t.Logf("%d states, %d ends", n, len(ends[i]))
		}
		for end := range ends[1] {
			if !ends[0][end] {
				t.Errorf("with its own work first nothing ends as\n%s", end)
			}
		}
	}
}

// explore looks at every state that can be reached from w, and returns the moves that
// lead to the first error. Unless ends is nil it gets every way in which it can end.
func explore(w *world, most int, ends map[string]bool) (states int, trace []string, err error) {
	seed := maphash.MakeSeed()
	seen := map[uint64]int{} // the most delays that were left
	type step struct {
		w     *world
		moves []move // not made yet
		last  move   // that led to it
	}
	stack := []step{{w: w, moves: w.moves()}}
	fail := func(err error, last move) (int, []string, error) {
		for _, s := range stack[1:] {
			trace = append(trace, s.last.name())
		}
		return len(seen), append(trace, last.name()), err
	}
	for len(stack) > 0 {
		top := &stack[len(stack)-1]
		if len(top.moves) == 0 {
			stack = stack[:len(stack)-1]
			continue
		}
		m := top.moves[0]
		top.moves = top.moves[1:]
		next := clone(top.w)
		m.do(next)
		next.links = slices.DeleteFunc(next.links, func(l *xLink) bool { return l.state == "closed" })
		if next.err != nil {
			return fail(next.err, m)
		}
		key := fingerprint(seed, next)
		if left, ok := seen[key]; ok && left >= next.left.delays {
			continue
		}
		if seen[key] = next.left.delays; len(seen) > most {
			return fail(fmt.Errorf("more than %d states", most), m)
		}
		moves := next.moves()
		if len(moves) == 0 {
			if err := next.atEnd(); err != nil {
				return fail(err, m)
			}
			if ends != nil {
				ends[next.end()] = true
			}
			continue
		}
		stack = append(stack, step{next, moves, m})
	}
	return len(seen), nil, nil
}

// atEnd checks a state in which nothing can happen any more.
func (w *world) atEnd() error {
	if !w.over {
		return fmt.Errorf("nothing can happen any more, and the transfer has not ended: %v", w.rows())
	}
	for i := 1; i < len(w.nodes); i++ {
		n, row := w.nodes[i], w.c.nodes[i].row
		twin := i == len(w.nodes)-1 && w.may.twins > 0
		switch {
		case row.State.Good() && (n.barred || twin):
			return fmt.Errorf("n%d is %s, and has another name", i, row.State)
		case row.State == Pending || row.State == Serving || row.State == Lost:
			return fmt.Errorf("the row of n%d is not final: %v", i, w.rows())
		case !n.touched && !row.State.Good():
			return fmt.Errorf("n%d, which nothing happened to, is %s: %s", i, row.State, row.Cause)
		case w.may.sets > 0 && w.may.flips == 0 && len(w.c.nodes[i].blame.ends) > 0:
			return fmt.Errorf("a link of n%d is blamed, and nobody changed bytes", i)
		case w.may.flips == 0 && w.c.nodes[i].blame.falls > w.mayFall(n):
			return fmt.Errorf("n%d went back %d times, with claims %v", i, w.c.nodes[i].blame.falls, n.old)
		case len(n.showing) > 0 && string(n.showing) != string(make([]byte, xFrames)):
			return fmt.Errorf("n%d shows %v", i, n.showing)
		}
	}
	return nil
}

// end tells how it ended.
func (w *world) end() (s string) {
	for i := 1; i < len(w.nodes); i++ {
		n, c := w.nodes[i], &w.c.nodes[i]
		s += fmt.Sprintf("%s %s, blamed %d, shows %v, up %v\n", c.name, c.row.State, len(c.blame.ends), n.showing, n.up)
	}
	return s
}

func (w *world) rows() (rows []string) {
	for _, n := range w.c.nodes[1:] {
		rows = append(rows, fmt.Sprintf("%s %s %s (phase %d, feed %d)", n.name, n.row.State, n.row.Cause, n.phase, n.feed.state))
	}
	return rows
}

// move is something that can happen.
type move struct {
	format string
	args   []any
	do     func(w *world)
}

func (m move) name() string { return fmt.Sprintf(m.format, m.args...) }

// active lists what nodes, links and the server may do now, in an order that is always the same. first says that the
// only move is to be made before all others.
func (w *world) active() (all []move, first bool) {
	add := func(do func(w *world), format string, args ...any) {
		all = append(all, move{format, args, do})
	}
	if w.over || w.err != nil {
		return nil, false
	}
	for i := 1; i < len(w.nodes); i++ {
		w.ownWork(i, add)
	}
	for k, l := range w.links {
		w.ownEnd(k, l, add)
	}
	if len(all) > 0 && !w.patient {
		return all[:1], true
	}
	for i := 1; i < len(w.nodes); i++ {
		w.movesOf(i, add)
	}
	for k, l := range w.links {
		w.movesOn(k, l, add)
	}
	if w.source && !w.told {
		if w.read < xFrames {
			add((*world).readOn, "the server reads byte %d", w.read)
		} else {
			add(func(w *world) {
				w.told = true
				w.chain(EvSourceDone{[]digest.Digest{w.digest()}, []int64{w.blob.Size}})
			}, "the source is done")
		}
	}
	if w.marking && w.again < xFrames {
		add((*world).markOn, "the server reads byte %d for its mark", w.again)
	}
	for k, a := range w.asks {
		if !a.redial || w.nodes[a.node].up {
			add(func(w *world) { w.ask(k) }, "the server asks n%d", a.node)
		}
	}
	return all, false
}

// moves lists what can happen, in an order that is always the same.
func (w *world) moves() (all []move) {
	all, first := w.active()
	if first || w.over || w.err != nil {
		return all
	}
	add := func(do func(w *world), format string, args ...any) {
		all = append(all, move{format, args, do})
	}
	quiet := len(all) == 0
	if w.left.delays == 0 && !quiet {
		all = all[:1]
	}
	for k := range all {
		if do := all[k].do; k > 0 && w.left.delays < anyOrder {
			all[k].do = func(w *world) { w.left.delays--; do(w) }
		}
	}
	w.harm(add)
	w.mayLie(quiet, add)
	if quiet && w.left.ticks > 0 {
		if w.may.lies > 0 {
			add((*world).pass, "time passes")
		} else {
			add((*world).tick, "a second passes")
		}
	}
	return all
}

// harm lists what may go wrong now.
func (w *world) harm(add addMove) {
	if w.left.twins > 0 && w.nodes[1].up && w.nodes[1].instance == 1 {
		add((*world).twin, "n1 answers to another name")
	}
	for i := 1; i < len(w.nodes); i++ {
		if i == len(w.nodes)-1 && w.may.twins > 0 {
			continue // it is no machine
		}
		if n := w.nodes[i]; n.up && w.left.crashes > 0 {
			add(func(w *world) { w.crash(i) }, "n%d crashes", i)
		} else if !n.up && !n.gone && w.left.returns > 0 {
			add(func(w *world) { w.left.returns--; n := w.own(i); n.up, n.instance = true, n.instance+10 }, "n%d returns", i)
		}
		if n := w.nodes[i]; n.up && n.ctrl && n.m != nil && w.left.cuts > 0 {
			add(func(w *world) {
				n := w.own(i)
				w.left.cuts--
				// Whose answer was not heard is lost, and nobody waits for it.
				n.touched = n.touched || w.c.nodes[i].phase < phReady
				n.ctrl, n.gone, n.in, n.out = false, true, nil, nil
			}, "the control connection of n%d breaks", i)
		}
	}
}

// tick is a second in which nothing else happens: everybody reports.
func (w *world) tick() {
	w.left.ticks--
	w.now += time.Second
	if w.may.lies > 0 {
		w.reportAll()
		w.chain(EvTick{w.now})
		return
	}
	for i := 1; i < len(w.nodes); i++ {
		if n := w.nodes[i]; n.m != nil && n.ctrl {
			r := n.m.Report()
			r.Wait = wire.WaitIn
			for _, l := range w.links {
				if l.feeder == i && l.state == "up" {
					r.Links = append(r.Links, wire.Sending{Link: l.link, Idle: !w.sendable(l)})
				}
			}
			w.chain(EvReport{i, *r})
		}
	}
	w.chain(EvTick{w.now})
}
