package warm

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// Two images are pushed at once, and there is room for one. The other is pushed when there is room for it, though there was more before the first.
func TestFullFitsLater(t *testing.T) {
	b := newBench(t, images("r.example/a:1", "r.example/b:1"), &State{Version: 1})
	n := newCacheNode()
	n.room = 100
	b.lookup, b.answer = tagOf, n.answer
	full := 0
	b.pushed = func(p *Push) *EvPushed {
		if n.room >= 60 {
			n.room -= 60
			n.commit(p)
			return committed(p)
		}
		full++
		return &EvPushed{Rows: []Row{{Node: "n1", Outcome: Full, Why: "full", Needs: 60}}}
	}
	b.rest(5 * time.Minute)
	n.room = 95 // somebody freed 55
	b.rest(24 * time.Hour)
	for _, i := range b.m.Snapshot(b.now).Images {
		if i.Warm != 1 {
			t.Errorf("%s: a day after there is room for 95, which is more than 60: %+v", i.Name, i.Nodes[0])
		}
	}
}

// A registry that wants to be left alone for an hour does not keep images of others back after a restart.
func TestLimitHoldsNobodyUp(t *testing.T) {
	old := time.Unix(1e9, 0).Add(-24 * time.Hour)
	state := &State{Version: 1}
	for _, r := range []string{"docker://hub.example/a:1", "docker://hub.example/b:1", "docker://hub.example/c:1", "docker://own.example/x:1"} {
		state.Images = append(state.Images, ImageSaved{Ref: r, List: dig(r), Found: old, Next: old,
			Variants: []VariantSaved{{"", strings.TrimPrefix(r, "docker://"), dig(r), 60, nil, old}}})
	}
	b := newBench(t, images("hub.example/a:1", "hub.example/b:1", "hub.example/c:1", "own.example/x:1"), state)
	n := newCacheNode()
	b.answer = n.answer
	b.lookup = func(l *Lookup) *EvFound {
		if strings.Contains(l.Image.Ref, "hub.example") {
			return &EvFound{Why: "429", Wait: time.Hour}
		}
		return tagOf(l)
	}
	first := time.Duration(0)
	b.pushed = func(p *Push) *EvPushed {
		if first == 0 {
			first = b.now.Since
		}
		n.commit(p)
		return committed(p)
	}
	b.rest(2 * time.Hour)
	if first == 0 || first > 5*time.Minute {
		t.Errorf("the images of a node that answers are first pushed after %v", first)
	}
}

// On a new cluster, what this controller itself has the node keep holds up nothing that is found later.
func TestOwnWishesHoldNothingUp(t *testing.T) {
	for _, wait := range []time.Duration{0, time.Hour} { // how long bad's registry wants to be left alone
		b := newBench(t, images("bad.example/bad:1", "r.example/good:1", "r.example/late:1"), nil)
		n := newCacheNode()
		b.answer = n.answer
		lateReady := false
		when := map[string]time.Duration{}
		b.lookup = func(l *Lookup) *EvFound {
			switch {
			case strings.Contains(l.Image.Ref, "bad"):
				return &EvFound{Why: "429", Wait: wait}
			case strings.Contains(l.Image.Ref, "late") && !lateReady:
				return &EvFound{Why: "503"}
			}
			return tagOf(l)
		}
		b.pushed = func(p *Push) *EvPushed {
			when[p.Name] = b.now.Since
			n.commit(p)
			return committed(p)
		}
		b.rest(30 * time.Second)
		lateReady = true
		b.rest(24 * time.Hour)
		if when["r.example/late:1"] == 0 || when["r.example/late:1"] > 2*time.Minute {
			t.Errorf("wait %v: late is pushed after %v", wait, when["r.example/late:1"])
		}
	}
}

// A ring in which only slow nodes are left takes no place from other images, and a newcomer gets a ring of its own. While the first node of a ring waits, nobody else is sent
// the same digest.
func TestSlowRingLeavesPlaces(t *testing.T) {
	b := newBench(t, strings.Replace(images("r.example/big:1", "r.example/small:1"), "n1", "n[1-2]", 1), &State{Version: 1})
	n1, n2 := newCacheNode(), newCacheNode()
	away := true
	smallReady := false
	b.lookup = func(l *Lookup) *EvFound {
		if strings.Contains(l.Image.Ref, "small") && !smallReady {
			return &EvFound{Why: "503"}
		}
		return tagOf(l)
	}
	b.answer = func(q *Query) *EvAnswer {
		if q.Node == "n1" {
			return n1.answer(q)
		}
		if away {
			return &EvAnswer{Why: "away"}
		}
		return n2.answer(q)
	}
	b.pushed = func(p *Push) *EvPushed { return nil } // runs for hours
	b.rest(2 * time.Minute)
	away = false
	b.rest(3 * time.Minute)
	smallReady = true
	b.rest(30 * time.Minute)
	small := func(want int, when string) {
		var names []string
		for _, p := range b.pushes {
			names = append(names, strings.TrimPrefix(p.Name, "r.example/")+" "+strings.Join(p.Nodes, ","))
		}
		if got, all := strings.Join(names, "; "), []string{"big:1 n1", "small:1 n1,n2", "big:1 n2"}; got != strings.Join(all[:want], "; ") {
			t.Errorf("%s: %s", when, got)
		}
	}
	small(2, "while big is on its way")
	b.does(EvProgress{1, Progress{Done: 1}})
	small(3, "when a first node has big")
}

// A node that commits again and again, and then says that it lacks the image, has failed.
func TestCommitLoop(t *testing.T) {
	b := newBench(t, images("r.example/a:1"), &State{Version: 1})
	n := newCacheNode()
	b.lookup, b.answer = tagOf, n.answer
	b.pushed = func(p *Push) *EvPushed { return committed(p) } // but it does not stay
	b.rest(24 * time.Hour)
	if len(b.pushes) > 100 {
		t.Errorf("%d pushes of the same image to the same node in a day", len(b.pushes))
	}
}

// Silent registries hold no others up.
func TestSilentRegistriesHoldNobodyUp(t *testing.T) {
	var refs []string
	for i := range 40 {
		refs = append(refs, fmt.Sprintf("s1.example/i%d:1", i), fmt.Sprintf("s2.example/i%d:1", i))
	}
	refs = append(refs, "good.example/x:1")
	b := newBench(t, images(refs...), &State{Version: 1})
	n := newCacheNode()
	b.answer = n.answer
	b.lookup = func(l *Lookup) *EvFound {
		if strings.Contains(l.Image.Ref, "good") {
			return tagOf(l)
		}
		b.late = append(b.late, struct {
			at time.Duration
			ev Event
		}{b.now.Since + 30*time.Second, EvFound{Lookup: *l, Why: "does not answer"}})
		return nil
	}
	first := time.Duration(0)
	b.pushed = func(p *Push) *EvPushed { first = b.now.Since; n.commit(p); return committed(p) }
	b.rest(3 * time.Hour)
	if first == 0 || first > 10*time.Minute {
		t.Errorf("good is pushed after %v", first)
	}
}

// Where groups name one platform in two ways, the own cache is told one wish: it would refuse two.
func TestOwnWishOnce(t *testing.T) {
	text := "[nodes.a]\nlist = \"n1\"\nplatform = \"linux/amd64\"\n[nodes.b]\nlist = \"n2\"\n[[image]]\nref = \"docker://r.example/x:1\"\nnodes = [\"a\", \"b\"]\n"
	b := newBench(t, text, &State{Version: 1})
	b.lookup, b.answer, b.pushed = tagOf, newCacheNode().answer, committed
	b.rest(5 * time.Second)
	seen := map[string]bool{}
	for _, w := range b.m.ownWishes() {
		if k := w.Name + " " + string(w.Digest); seen[k] {
			t.Errorf("%s is wanted twice", k)
		} else {
			seen[k] = true
		}
	}
}

// A node that was away and takes 3 s to answer gets its image soon.
func TestBackSlowly(t *testing.T) {
	b := newBench(t, images("r.example/a:1"), &State{Version: 1})
	n := newCacheNode()
	b.lookup = tagOf
	back := false
	var asked time.Duration
	b.answer = func(q *Query) *EvAnswer {
		if !back {
			return &EvAnswer{Why: "no route"}
		}
		if asked == 0 {
			asked = b.now.Since
		}
		ev := n.answer(q)
		ev.Query = q
		b.late = append(b.late, struct {
			at time.Duration
			ev Event
		}{b.now.Since + 3*time.Second, *ev})
		return nil
	}
	pushed := time.Duration(0)
	b.pushed = func(p *Push) *EvPushed { pushed = b.now.Since; n.commit(p); return committed(p) }
	b.rest(10 * time.Minute)
	back = true
	b.rest(10 * time.Minute)
	if pushed-asked > b.m.list.CatchUp {
		t.Errorf("pushed %v after the first question", pushed-asked)
	}
}

// A state that cannot be saved has nobody asked more often.
func TestUnsavedRounds(t *testing.T) {
	for _, broken := range []bool{false, true} {
		var refs []string
		for i := range 200 {
			refs = append(refs, fmt.Sprintf("r.example/i%d:1", i))
		}
		b := newBench(t, images(refs...), &State{Version: 1})
		n := newCacheNode()
		b.lookup, b.answer = tagOf, n.answer
		b.pushed = func(p *Push) *EvPushed { n.commit(p); return committed(p) }
		b.rest(30 * time.Minute)
		before := len(b.asks)
		for range 60 {
			if broken {
				b.does(EvSaved{"no space left on device"})
			}
			b.rest(time.Minute)
		}
		if n := len(b.asks) - before; n > 61 {
			t.Errorf("broken %v: %d questions to a node in an hour", broken, n)
		}
	}
}

// A full node that says what it lacks is pushed to when it has room for that, though the push said more.
func TestFullLacksLittle(t *testing.T) {
	b := newBench(t, images("r.example/a:1"), &State{Version: 1})
	room, pushes := int64(8), 0
	b.lookup = tagOf
	b.answer = func(q *Query) *EvAnswer {
		h := Holding{Lacks: 6}
		if pushes == 2 {
			h = Holding{Named: dig("docker://r.example/a:1")}
		}
		return &EvAnswer{Answer: Answer{Room: room, Images: []Holding{h}[:len(q.Images)]}}
	}
	b.pushed = func(p *Push) *EvPushed {
		if pushes++; room == 20 {
			return committed(p)
		}
		return &EvPushed{Rows: []Row{{Node: "n1", Outcome: Full, Why: "needs 6 B, 5 B are free there", Needs: 60}}}
	}
	b.rest(time.Hour)
	room = 20
	b.rest(24 * time.Hour)
	if pushes != 2 {
		t.Errorf("lacks 6, has room for 20, and is pushed to %d times in a day", pushes)
	}
}
