package warm

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

var (
	simSeeds = flag.Int("sim.seeds", 1, "how many weeks TestSim lives through")
	simFirst = flag.Uint64("sim.first", 4, "the first seed")
	simNodes = flag.Int("sim.nodes", 0, "nodes of the cluster; 0 is as many as a test may cost")
	simRound = flag.Duration("sim.catchup", 5*time.Minute, "catch-up")
)

var simRefs = []string{"docker://a.example/torch:25", "docker://a.example/chem:1", "docker://b.example/mpi:4", "/images/tool.sif"}

const week = 7 * 24 * time.Hour

// newWorld makes a cluster of two groups, three images in a registry and a SIF.
func newWorld(seed uint64, nodes int, catchUp time.Duration) *world {
	w := &world{rng: rand.New(rand.NewPCG(seed, 1)), wall: time.Date(2026, 3, 25, 12, 0, 0, 0, time.UTC), // it has a change of the clocks
		tags: map[string]digest.Digest{}, size: map[digest.Digest]int64{}, nodes: map[string]*simNode{}, nodesOf: map[string][]string{},
		pushes: map[int]*simPush{}, check: newChecker(), quiet: week - 6*time.Hour}
	zone, err := time.LoadLocation("Europe/Zurich")
	if err != nil {
		panic(err)
	}
	w.list = &List{Every: 10 * time.Minute, Zone: zone, Rings: 2, Retry: Retry{time.Minute, time.Hour}, CatchUp: catchUp,
		Groups: []Group{{Name: "cpu", Command: "cpus", Platform: "linux/amd64"}, {Name: "gpu", Command: "gpus", Platform: "linux/arm64"}}}
	if seed%2 == 0 {
		window, _ := ParseWindow("Mon-Fri 18:00-08:00")
		weekend, _ := ParseWindow("Sat-Sun")
		w.list.Windows, w.list.Outside = []Window{window, weekend}, Outside{Off: seed%4 == 0, Rate: 50e6}
		w.list.Every = 3 * time.Minute
	}
	for i, ref := range simRefs {
		image := Image{Ref: ref, Nodes: []string{"cpu", "gpu"}, Keep: 1 + i%2, Min: 90, Priority: i % 3}
		if i == 2 {
			image.Nodes = []string{"gpu"}
		}
		w.list.Images = append(w.list.Images, image)
		w.move(ref)
	}
	for i := range nodes {
		group := []string{"cpu", "gpu"}[i%2]
		n := &simNode{name: fmt.Sprintf("%s%04d", group, i), up: true, cap: 70e9, blobs: map[digest.Digest]simBlob{}, names: map[string]digest.Digest{},
			wished: map[digest.Digest]bool{}, foreign: map[string]bool{}}
		w.nodes[n.name] = n
		w.order = append(w.order, n)
		w.nodesOf[group] = append(w.nodesOf[group], n.name)
	}
	return w
}

// move gives a Ref new images, or those that it had once.
func (w *world) move(ref string) {
	generation := w.rng.IntN(6)
	for _, platform := range []string{"linux/amd64", "linux/arm64"} {
		d := digest.FromString(fmt.Sprintf("%s %s %d", ref, platform, generation))
		w.tags[ref+platform] = d
		w.size[d] = 2e9 + int64(d[10])*20e6
		if ref == simRefs[0] {
			w.size[d] *= 6
		}
	}
}

// often does something again and again, about so many times a week.
func (w *world) often(times int, do func()) {
	for range times {
		w.after(w.between(0, w.quiet-5*time.Hour), do)
	}
}

func (w *world) anyNode() *simNode { return w.order[w.rng.IntN(len(w.order))] }

func (n *simNode) down(w *world) {
	if n.up {
		n.up, n.changed = false, w.now
		n.outages = append(n.outages, w.now)
	}
}

func (n *simNode) rise(w *world, wipe bool) {
	if !n.up {
		n.up, n.changed = true, w.now
		if wipe {
			n.wiped, n.grew = w.now, w.now
			clear(n.blobs)
			clear(n.names)
			clear(n.wished)
		}
	}
}

// faults fills a week with them. The last hours are quiet.
func (w *world) faults() {
	w.often(len(w.order)*2, func() {
		n := w.anyNode()
		n.down(w)
		wipe := w.rng.IntN(3) == 0
		w.after(w.between(time.Minute, 4*time.Hour), func() { n.rise(w, wipe) })
	})
	for range max(1, len(w.order)/100) {
		n := w.anyNode()
		from, until := w.between(0, 2*24*time.Hour), w.between(3*24*time.Hour, 5*24*time.Hour)
		w.after(from, func() { w.flap(n, until) })
	}
	w.often(len(w.order)/4, func() { // what other senders push
		n := w.anyNode()
		if n.up {
			d := digest.FromString(fmt.Sprint("of another sender ", w.rng.IntN(50)))
			n.store(w, d, 5e9)
		}
	})
	w.often(max(5, len(w.order)/20), func() { // pins of the owner local take almost all the room
		n, d := w.anyNode(), digest.FromString("pinned")
		n.blobs[d] = simBlob{bytes: n.cap - 1e9, pin: true, used: w.now}
		for other, b := range n.blobs {
			if !b.pin && !n.wished[other] {
				n.evict(other)
			}
		}
		w.after(10*time.Minute, func() { w.move(simRefs[1]) })
		w.after(w.between(time.Hour, 5*time.Hour), func() {
			n.evict(d)
			n.grew = w.now
		})
	})
	w.often(max(3, len(w.order)/50), func() {
		n := w.anyNode()
		n.broken = true
		w.after(w.between(time.Hour, 5*time.Hour), func() { n.broken, n.changed = false, w.now })
	})
	w.often(3, func() {
		n, name := w.anyNode(), "name of "+w.list.Images[0].Ref
		n.foreign[name] = true
		w.after(w.between(time.Hour, 5*time.Hour), func() { n.foreign[name], n.changed = false, w.now })
	})
	w.often(25, func() { w.move(simRefs[w.rng.IntN(4)]) })
	for day := range 5 { // a tag that moves just before the windows close
		w.after(time.Duration(day)*24*time.Hour+w.between(18*time.Hour+56*time.Minute, 18*time.Hour+58*time.Minute), func() { w.move(simRefs[0]) })
	}
	w.often(6, func() {
		w.failing = []string{"connection refused", "503 service unavailable", "429 too many requests", "the digest is another one"}[w.rng.IntN(4)]
		if w.failing[0] == '4' {
			w.wait = w.between(time.Minute, 30*time.Minute)
		}
		if w.rng.IntN(2) == 0 {
			w.source = w.failing
		}
		w.after(w.between(10*time.Minute, 4*time.Hour), func() { w.failing, w.wait, w.source = "", 0, "" })
	})
	w.often(4, func() {
		w.command = []string{"fails", "empty"}[w.rng.IntN(2)]
		w.after(w.between(time.Minute, 3*time.Hour), func() { w.command = "" })
	})
	w.often(4, func() { w.wall = w.wall.Add(w.between(-3*time.Hour, 3*time.Hour)) })
	w.often(10, func() {
		if w.m != nil {
			w.kill()
			withState := w.rng.IntN(3) > 0
			w.after(w.between(time.Second, 10*time.Minute), func() { w.start(withState) })
		}
	})
	w.often(6, w.reload)
	w.often(6, func() { w.join(fmt.Sprintf("late%04d", len(w.order))) })
}

func (w *world) flap(n *simNode, until time.Duration) {
	n.flapping = w.now < until
	if !n.flapping {
		n.rise(w, false)
		return
	}
	if n.up {
		n.down(w)
	} else {
		n.rise(w, w.rng.IntN(2) == 0)
	}
	w.after(w.between(time.Minute, 9*time.Minute), func() { w.flap(n, until) })
}

// reload gives the controller another list, with an image more or less, or a wrong one.
func (w *world) reload() {
	if w.m == nil {
		return
	}
	if w.rng.IntN(3) == 0 {
		w.step(EvRefused{"line 1: unknown key"})
		return
	}
	list := *w.list
	list.Images = slices.Clone(list.Images)
	if len(list.Images) > 3 && w.rng.IntN(2) == 0 {
		list.Images = list.Images[:3]
	} else if len(list.Images) == 3 {
		list.Images = append(list.Images, Image{Ref: "/images/tool.sif", Nodes: []string{"cpu", "gpu"}, Keep: 2, Min: 90})
	}
	list.Images[0].Priority = w.rng.IntN(5)
	w.list, w.changed = &list, w.now
	w.check.reloaded()
	w.step(EvList{&list})
}

func (w *world) join(name string) {
	n := &simNode{name: name, up: true, changed: w.now, cap: 70e9, blobs: map[digest.Digest]simBlob{}, names: map[string]digest.Digest{},
		wished: map[digest.Digest]bool{}, foreign: map[string]bool{}}
	if w.nodes[name] == nil {
		w.nodes[name] = n
		w.order = append(w.order, n)
		w.nodesOf["cpu"] = append(slices.Clone(w.nodesOf["cpu"]), name)
	}
}

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
	w.run(week)
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
		w.each(func(n *simNode, i *Image, platform string) {
			if !n.holds("name of "+i.Ref, w.tags[i.Ref+platform]) {
				w.check.fail(w, "%s lacks %s at the end", n.name, i.Ref)
			}
		})
		rounds := int(week/w.list.CatchUp) + 200
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
		nodes = map[bool]int{false: 200, true: 40}[raceDetector]
	}
	for seed := *simFirst; seed < *simFirst+uint64(*simSeeds); seed++ {
		w := newWorld(seed, nodes, *simRound)
		if wrong := w.week(); wrong != "" {
			t.Errorf("seed %d: %s", seed, wrong)
		}
		t.Logf("seed %d: %d pushes, %d warm at most", seed, w.check.pushes, w.check.warmest)
		if w.check.warmest < nodes/2 || w.check.pushes < 30 {
			t.Errorf("seed %d: nothing happened", seed)
		}
	}
}

// The checker finds a controller that breaks a promise.
func TestSimFinds(t *testing.T) {
	each := func(do func(w *world, a Action) []Action) func(*world, []Action) []Action {
		return func(w *world, acts []Action) (out []Action) {
			for _, a := range acts {
				out = append(out, do(w, a)...)
			}
			return out
		}
	}
	for name, broken := range map[string]func(*world, []Action) []Action{
		"no wishes": each(func(w *world, a Action) []Action {
			if ask, ok := a.(ActAsk); ok {
				for _, q := range ask.Queries {
					q.Wishes = nil
				}
			}
			return []Action{a}
		}),
		"old digests are not wished": each(func(w *world, a Action) []Action {
			if ask, ok := a.(ActAsk); ok {
				for _, q := range ask.Queries {
					q.Wishes = slices.DeleteFunc(q.Wishes, func(wish Wish) bool {
						return !slices.ContainsFunc(q.Images, func(i Question) bool { return i.Digest == wish.Digest })
					})
				}
			}
			return []Action{a}
		}),
		"all are pushed to": each(func(w *world, a Action) []Action {
			if p, ok := a.(ActPush); ok && w.now > 2*time.Hour {
				p.Push.Nodes = w.nodesOf["gpu"]
				return []Action{p}
			}
			return []Action{a}
		}),
		"a node is forgotten": each(func(w *world, a Action) []Action {
			if p, ok := a.(ActPush); ok {
				p.Push.Nodes = slices.DeleteFunc(slices.Clone(p.Push.Nodes), func(n string) bool { return n == w.order[1].name })
				if len(p.Push.Nodes) == 0 {
					return nil
				}
				return []Action{p}
			}
			return []Action{a}
		}),
		"lookups in a loop": func(w *world, acts []Action) []Action {
			if w.now > time.Hour && w.m.entries[0].next > w.m.now.Since {
				w.m.entries[0].next = w.m.now.Since
			}
			return acts
		},
		"no backoff": func(w *world, acts []Action) []Action {
			for _, v := range w.m.variants {
				for _, p := range v.pairs {
					p.next = 0
				}
			}
			return acts
		},
		"full ones are tried again": func(w *world, acts []Action) []Action {
			for _, v := range w.m.variants {
				for _, p := range v.pairs {
					if p.outcome == Full {
						p.room, p.needs = -1, 0
					}
				}
			}
			return acts
		},
		"no rings end with the windows": each(func(w *world, a Action) []Action {
			if _, ok := a.(ActStop); ok {
				return nil
			}
			return []Action{a}
		}),
		"nothing is asked any more": each(func(w *world, a Action) []Action {
			if _, ok := a.(ActAsk); ok && w.now > 24*time.Hour {
				return nil
			}
			return []Action{a}
		}),
	} {
		w := newWorld(4, 20, 10*time.Minute)
		w.broken = broken
		wrong := w.week()
		t.Logf("%s: %s", name, wrong)
		if wrong == "" {
			t.Errorf("%s: not found", name)
		}
	}
}
