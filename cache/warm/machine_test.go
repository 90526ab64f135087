package warm

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// A pattern that matches more tags than a node can be asked about warms as many as it can, with all of their wishes, and
// says which it leaves out. Nothing that a message has no room for is sent.
func TestManyTags(t *testing.T) {
	list, err := Parse([]byte("[nodes.all]\nlist = \"n1\"\n[[image]]\nref = \"docker://r.example/torch\"\ntags = \"*\"\nnodes = [\"all\"]\nkeep = 3\n"))
	if err != nil {
		t.Fatal(err)
	}
	m := New(Now{Wall: time.Unix(1e9, 0)}, list, nil, 1)
	var now time.Duration
	var last *Query
	step := func(ev Event) {
		acts := m.Step(Now{now, time.Unix(1e9, 0).Add(now)}, ev)
		for len(acts) > 0 {
			if ask, ok := acts[0].(ActAsk); ok {
				last = ask.Queries[0]
				answer := Answer{Images: make([]Holding, len(last.Images))}
				for i, q := range last.Images {
					answer.Images[i] = Holding{Lacks: 1, Named: digest.FromString("of a sender " + q.Name)}
				}
				acts = append(acts, m.Step(Now{now, time.Unix(1e9, 0).Add(now)}, EvAnswer{Query: last, Answer: answer})...)
			}
			acts = acts[1:]
		}
	}
	step(EvTick{})
	for generation := range 3 {
		ev := EvFound{Lookup: Lookup{Image: list.Images[0], Platforms: []string{""}}}
		for i := range mostPairs + 100 {
			ref := fmt.Sprint(list.Images[0].Ref, ":", i)
			d := digest.FromString(fmt.Sprint(ref, generation))
			ev.Tags = append(ev.Tags, Tag{Ref: ref, List: d, Variants: []Found{{"", ref, d, 1}}})
		}
		step(ev)
		now += list.Every + time.Second
		step(EvTick{})
	}
	if len(last.Images) != mostPairs || len(last.Wishes) != mostWishes {
		t.Fatalf("%d questions, %d wishes", len(last.Images), len(last.Wishes))
	}
	for i, q := range last.Images {
		if last.Wishes[i].Digest != q.Digest || last.Wishes[mostPairs+i].Digest != digest.FromString("of a sender "+q.Name) {
			t.Fatalf("%d: %v for %v", i, last.Wishes[i], q)
		}
	}
	images := m.Snapshot(Now{now, time.Unix(1e9, 0)}).Images
	if i := images[mostPairs]; len(images) != mostPairs+100 || i.State != ImageBlocked || !strings.HasPrefix(i.Reason, "n1 has 512 images before this one") {
		t.Errorf("%d images, %+v", len(images), i)
	}
}

// Of several tags one that cannot be looked up does not concern the others: what is known of it stands, and the status says why it is old.
func TestBrokenTag(t *testing.T) {
	list, err := Parse([]byte("[nodes.all]\nlist = \"n1\"\nplatform = \"linux/amd64\"\n[[image]]\nref = \"docker://r.example/torch\"\ntags = \"*\"\nnodes = [\"all\"]\n"))
	if err != nil {
		t.Fatal(err)
	}
	now := Now{Wall: time.Unix(1e9, 0)}
	m := New(now, list, nil, 1)
	var asked []Lookup
	find := func(tags ...Tag) []ImageStatus {
		t.Helper()
		asked = nil
		now.Since += list.Retry.Most
		for _, a := range m.Step(now, EvTick{}) {
			if a, ok := a.(ActLookup); ok {
				asked = append(asked, a.Lookup)
			}
		}
		if len(asked) != 1 {
			t.Fatalf("%d lookups", len(asked))
		}
		m.Step(now, EvFound{Lookup: asked[0], Tags: tags})
		return m.Snapshot(now).Images
	}
	ref := func(n int) string { return fmt.Sprint(list.Images[0].Ref, ":", n) }
	good := func(n int, text string) Tag {
		d := digest.FromString(text)
		return Tag{Ref: ref(n), List: d, Variants: []Found{{"linux/amd64", ref(n), d, 1}}}
	}
	broken := func(n int, why string) Tag { return Tag{Ref: ref(n), Why: why} }
	foreign := Tag{Ref: ref(3), List: digest.FromString("arm only")}
	if s := find(broken(1, "404"), broken(2, "denied")); len(s) != 1 || s[0].Stale != ref(1)+": 404" {
		t.Errorf("all broken: %+v", s)
	}
	s := find(broken(1, "404"), good(2, "two"), foreign)
	if len(s) != 3 || s[0].State != ImageBlocked || s[0].Reason != "404" || s[0].Digest != "" || s[1].Digest != digest.FromString("two") || s[1].Stale != "" ||
		!strings.HasPrefix(s[2].Reason, "there is no image of the platforms") {
		t.Errorf("one good: %+v", s)
	}
	if saved := m.state().Images; len(saved) != 1 || saved[0].Ref != ref(2) {
		t.Errorf("saved %+v", saved)
	}
	s = find(good(1, "one"), broken(2, "502"), Tag{Ref: ref(3), List: foreign.List})
	if len(s) != 3 || s[0].Digest != digest.FromString("one") || s[1].Digest != digest.FromString("two") || s[1].Stale != "502" || s[0].Stale != "" {
		t.Errorf("another one: %+v", s)
	}
	if known := asked[0].Known; len(known) != 2 || known[ref(3)] != foreign.List { // it is not read again each time
		t.Errorf("known %v", known)
	}
	if s = find(good(1, "one"), Tag{Ref: ref(2), List: digest.FromString("two")}); len(s) != 2 || s[1].Stale != "" || s[1].Digest != digest.FromString("two") {
		t.Errorf("all good, and one gone: %+v", s)
	}
}

// Of two entries that turn out to have one name in the caches, a node gets the first, and the status says so of the other. On other nodes it is
// as any other, and as long as one of them waits for it, it is not blocked.
func TestTwinsFound(t *testing.T) {
	list, err := Parse([]byte("[nodes.a]\nlist = \"n[1-2]\"\n[nodes.b]\nlist = \"n[2-3]\"\n[[image]]\nref = \"docker://torch:1\"\nnodes = [\"a\"]\n" +
		"[[image]]\nref = \"docker://docker.io/library/torch:1\"\nnodes = [\"b\"]\n"))
	if err != nil {
		t.Fatal(err)
	}
	now := Now{Wall: time.Unix(1e9, 0)}
	m := New(now, list, nil, 1)
	var pushes []Push
	var step func(Event)
	step = func(ev Event) { // nodes that are asked lack everything
		for _, a := range m.Step(now, ev) {
			switch a := a.(type) {
			case ActLookup:
				d := digest.FromString(a.Lookup.Image.Ref)
				step(EvFound{Lookup: a.Lookup, Tags: []Tag{{Ref: a.Lookup.Image.Ref, List: d, Variants: []Found{{"", "docker.io/library/torch:1", d, 1}}}}})
			case ActAsk:
				for _, q := range a.Queries {
					step(EvAnswer{Query: q, Answer: Answer{Room: -1, Images: slices.Repeat([]Holding{{Lacks: 1}}, len(q.Images))}})
				}
			case ActPush:
				pushes = append(pushes, a.Push)
			}
		}
	}
	for range 3 {
		now = Now{now.Since + time.Second, now.Wall.Add(time.Second)}
		step(EvTick{})
	}
	const why = "has the image docker://torch:1 under the name docker.io/library/torch:1"
	left := NodeStatus{Node: "n2", State: NodeFailed, Reason: why}
	s := m.Snapshot(now).Images
	if len(s) != 2 || len(s[0].Nodes) != 2 || len(s[1].Nodes) != 2 || s[1].Nodes[0].Node != "n3" || s[1].Nodes[1] != left || s[1].State != ImageWarming {
		t.Errorf("%+v", s)
	}
	for _, p := range pushes {
		rows := []Row{}
		for _, n := range p.Nodes {
			rows = append(rows, Row{Node: n, Outcome: Committed})
		}
		step(EvPushed{Push: p.ID, Rows: rows})
	}
	if s := m.Snapshot(now).Images; s[0].State != ImageWarm || s[1].State != ImageDegraded || s[1].Warm != 1 || s[1].Reason != "1 of 2 failed" {
		t.Errorf("%+v", s)
	}
	alone, err := Parse([]byte("[nodes.a]\nlist = \"n2\"\n[[image]]\nref = \"docker://torch:1\"\nnodes = [\"a\"]\n[[image]]\nref = \"docker://docker.io/library/torch:1\"\nnodes = [\"a\"]\n"))
	if err != nil {
		t.Fatal(err)
	}
	step(EvList{alone})
	if s := m.Snapshot(now).Images; s[1].State != ImageBlocked || s[1].Reason != "n2 "+why {
		t.Errorf("%+v", s[1])
	}
}

// A state that is old is not gone by before the registry was asked, so that no old digest is pushed over a new one. Where the registry does not
// answer, it is.
func TestOldState(t *testing.T) {
	list, err := Parse([]byte("[nodes.all]\nlist = \"n1\"\n[[image]]\nref = \"docker://r.example/torch:1\"\nnodes = [\"all\"]\n"))
	if err != nil {
		t.Fatal(err)
	}
	old, moved := digest.FromString("old"), digest.FromString("moved")
	for _, answers := range []bool{true, false} {
		now := Now{Wall: time.Unix(1e9, 0)}
		m := New(now, list, &State{Version: 1, Images: []ImageSaved{{Ref: list.Images[0].Ref, List: old, Next: now.Wall.Add(-time.Hour), Variants: []VariantSaved{{Name: "torch", Digest: old}}}}}, 1)
		var looked *Lookup
		wished := map[digest.Digest]bool{}
		var step func(ev Event)
		step = func(ev Event) {
			for _, a := range m.Step(now, ev) {
				switch a := a.(type) {
				case ActLookup:
					looked = &a.Lookup
				case ActKeep:
					wished[a.Wishes[0].Digest] = true
				case ActPush:
					wished[a.Push.Digest] = true
				case ActAsk:
					for _, w := range a.Queries[0].Wishes {
						wished[w.Digest] = true
					}
					step(EvAnswer{Query: a.Queries[0], Answer: Answer{Room: -1, Images: []Holding{{Lacks: 1}}}})
				}
			}
		}
		for range 10 {
			step(EvTick{})
			now.Since += time.Second
		}
		if looked == nil || len(wished) > 0 {
			t.Fatalf("before the answer: %v, %v", looked, wished)
		}
		ev, want := EvFound{Lookup: *looked, Why: "away"}, old
		if answers {
			ev, want = EvFound{Lookup: *looked, Tags: []Tag{{Ref: looked.Image.Ref, List: moved, Variants: []Found{{"", "torch", moved, 1}}}}}, moved
		}
		step(ev)
		for range 2 * int(list.CatchUp/time.Second) {
			step(EvTick{})
			now.Since += time.Second
		}
		if !wished[want] || !answers && wished[moved] || m.pushes[1] == nil || m.pushes[1].Digest != want {
			t.Errorf("answers %v: %v, %v", answers, wished, m.pushes)
		}
	}
}

// Away is a node where nothing answers. One that answers and does not tell what it holds has failed, with its reason, also for an image that was never found.
func TestUntold(t *testing.T) {
	list, err := Parse([]byte("[nodes.all]\nlist = \"n1\"\n[[image]]\nref = \"docker://r.example/torch:1\"\nnodes = [\"all\"]\n[[image]]\nref = \"docker://r.example/none:1\"\nnodes = [\"all\"]\n"))
	if err != nil {
		t.Fatal(err)
	}
	now := Now{Wall: time.Unix(1e9, 0)}
	m := New(now, list, nil, 1)
	var query *Query
	step := func(ev Event) {
		for _, a := range m.Step(now, ev) {
			switch a := a.(type) {
			case ActAsk:
				query = a.Queries[0]
			case ActLookup:
				d := digest.FromString("1")
				ev := EvFound{Lookup: a.Lookup, Tags: []Tag{{Ref: a.Lookup.Image.Ref, List: d, Variants: []Found{{"", "torch", d, 1}}}}}
				if a.Lookup.Image.Ref != list.Images[0].Ref {
					ev = EvFound{Lookup: a.Lookup, Why: "404", Sure: true}
				}
				m.Step(now, ev)
			}
		}
	}
	step(EvTick{})
	for _, c := range []struct {
		ev    EvAnswer
		state NodeState
		why   string
	}{
		{EvAnswer{Why: "connection refused"}, NodeAway, "connection refused"},
		{EvAnswer{Why: "speaks protocol 7: upgrade the nodes first", Failed: true}, NodeFailed, "speaks protocol 7: upgrade the nodes first"},
		{EvAnswer{Answer: Answer{Images: make([]Holding, 9)}}, NodeFailed, "answers 9 of 1 questions"},
		{EvAnswer{Why: "no route to host"}, NodeAway, "no route to host"},
		{EvAnswer{Answer: Answer{Images: []Holding{{Lacks: -1}}}}, NodeMissing, ""},
	} {
		c.ev.Query = query
		query = nil
		step(c.ev)
		images := m.Snapshot(now).Images
		if n := images[0].Nodes[0]; n.State != c.state || n.Reason != c.why {
			t.Errorf("%+v: %+v", c.ev, n)
		}
		if n := images[1].Nodes[0]; c.why != "" && (n.State != c.state || n.Reason != c.why) {
			t.Errorf("not found: %+v: %+v", c.ev, n)
		}
		for query == nil {
			now.Since += time.Second
			step(EvTick{})
		}
	}
}
