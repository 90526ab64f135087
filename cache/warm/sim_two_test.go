package warm

import (
	"slices"
	"testing"
	"time"
)

// twoControllers makes a cluster with two controllers, and the faults of a day. Change changes the list of the second one.
func twoControllers(change func(l *List)) (a, b *world, moves *int) {
	a = newWorld(3, 12, 5*time.Minute) // without windows
	b = a.control("b")
	list := *a.list
	list.Images = slices.Clone(list.Images)
	b.list = &list
	change(b.list)
	a.quiet = 14 * time.Hour
	a.often(24, func() {
		n := a.anyNode()
		n.down(a)
		wipe := a.rng.IntN(2) == 0
		a.after(a.between(time.Minute, time.Hour), func() { n.rise(a, wipe) })
	})
	moves = new(int)
	a.often(12, func() {
		*moves++
		a.move(simRefs[a.rng.IntN(4)])
	})
	for _, w := range a.controllers {
		w.often(4, func() {
			if w.m != nil {
				w.kill()
				withState := w.rng.IntN(2) == 0
				w.after(w.between(time.Second, 10*time.Minute), func() { w.start(withState) })
			}
		})
		w.start(false)
		w.after(time.Minute+time.Second, w.watch)
	}
	return a, b, moves
}

// settle has all nodes up, and lets everything come to rest.
func (w *world) settle(d time.Duration) {
	for _, n := range w.order {
		n.rise(w, false)
	}
	w.run(w.now + d)
}

// pingPong says if names have switched more often than tags have moved.
func (w *world) pingPong(moves int) string {
	if most := moves * len(w.order); w.wrong() == "" && w.switches > most {
		w.check.fail(w, "names have switched %d times, at most %d", w.switches, most)
	}
	return w.wrong()
}

// Two controllers with the same list do no harm: all is warm, and no name goes to and fro.
func TestSimTwoSame(t *testing.T) {
	a, b, moves := twoControllers(func(*List) {})
	a.run(a.quiet)
	a.settle(2 * time.Hour)
	if wrong := a.pingPong(*moves); wrong != "" {
		t.Fatal(wrong)
	}
	for _, w := range []*world{a, b} {
		for _, i := range w.m.Snapshot(w.clock()).Images {
			if i.State != ImageWarm || i.Warm != len(i.Nodes) || i.Warm == 0 {
				t.Errorf("%s: %s is %s, %d of %d", w.owner, i.Ref, i.State, i.Warm, len(i.Nodes))
			}
		}
	}
	t.Logf("%d and %d pushes, %d moves, %d switches", a.check.pushes, b.check.pushes, *moves, a.switches)
	if a.check.pushes == 0 || b.check.pushes == 0 || a.switches == 0 {
		t.Error("nothing happened")
	}
}

// Of two controllers that want different images under one name, each node has that of the first, and the other one says so. When
// its owner does not want the name any more, the other one gets it.
func TestSimTwoDifferent(t *testing.T) {
	const name, other = "name of docker://a.example/chem:1", "docker://c.example/chem:1"
	differ := func(lawless bool) (a, b *world, wrong string) {
		a, b, moves := twoControllers(func(l *List) { l.Images[1].Ref, l.Images[1].Name = other, name })
		a.lawless = lawless
		a.move(other)
		a.run(a.quiet)
		a.settle(2 * time.Hour)
		return a, b, a.pingPong(*moves)
	}
	if _, _, wrong := differ(true); wrong == "" {
		t.Error("not found where nodes do not know the rule")
	} else {
		t.Log(wrong)
	}
	a, b, wrong := differ(false)
	if wrong != "" {
		t.Fatal(wrong)
	}
	states := func(w *world) map[string]NodeStatus {
		rows := map[string]NodeStatus{}
		for _, i := range w.m.Snapshot(w.clock()).Images {
			for _, n := range i.Nodes {
				if i.Name == name {
					rows[n.Node] = n
				}
			}
		}
		return rows
	}
	ofA, ofB, first := states(a), states(b), map[string]int{}
	for _, n := range a.order {
		switch {
		case ofA[n.name].State == NodeWarm && ofB[n.name].State == NodeConflict && ofB[n.name].Reason == "belongs to a":
			first["a"]++
		case ofB[n.name].State == NodeWarm && ofA[n.name].State == NodeConflict && ofA[n.name].Reason == "belongs to b":
			first["b"]++
		default:
			t.Errorf("%s: %+v, %+v", n.name, ofA[n.name], ofB[n.name])
		}
	}
	t.Log(first)
	list := *b.list
	list.Images = slices.Delete(slices.Clone(list.Images), 1, 2)
	b.list, b.changed = &list, b.now
	b.check.reloaded()
	b.step(EvList{&list})
	for _, n := range a.order {
		n.moved = a.now + list.CatchUp // when b has told it
	}
	a.settle(time.Hour)
	if wrong := a.wrong(); wrong != "" {
		t.Fatal(wrong)
	}
	for node, row := range states(a) {
		if row.State != NodeWarm {
			t.Errorf("after b has dropped it: %s: %+v", node, row)
		}
	}
}
