package warm

import (
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// A list that is edited while its images are looked up takes effect: what was found for the list before does not pass for what the new
// one asks for.
func TestEditDuringLookup(t *testing.T) {
	const before = "[nodes.a]\nlist = \"n1\"\n[[image]]\nref = \"docker://r.example/torch:1\"\nnodes = [\"a\"]\nname = \"r.example/old:1\"\n"
	for what, after := range map[string]string{
		"name":     "[nodes.a]\nlist = \"n1\"\n[[image]]\nref = \"docker://r.example/torch:1\"\nnodes = [\"a\"]\nname = \"r.example/new:1\"\n",
		"platform": "[nodes.a]\nlist = \"n1\"\nplatform = \"linux/arm64\"\n[[image]]\nref = \"docker://r.example/torch:1\"\nnodes = [\"a\"]\nname = \"r.example/old:1\"\n",
	} {
		parse := func(text string) *List {
			list, err := Parse([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			return list
		}
		now := Now{Wall: time.Unix(1e9, 0)}
		m := New(now, parse(before), nil, 1)
		lookup := func() (l *Lookup) {
			for _, a := range m.Step(now, EvTick{}) {
				if a, ok := a.(ActLookup); ok {
					l = &a.Lookup
				}
			}
			return l
		}
		first := lookup()
		m.Step(now, EvList{parse(after)})
		m.Step(now, EvFound{Lookup: *first, Tags: []Tag{{Ref: first.Image.Ref, List: digest.FromString("index"), Variants: []Found{{"", first.Image.Name, digest.FromString("image"), 1}}}}})
		now.Since += time.Second
		second := lookup()
		if second == nil || len(second.Known) > 0 || second.Image.Name != m.list.Images[0].Name || second.Platforms[0] != m.list.Groups[0].Platform {
			t.Errorf("%s: asked again for %+v", what, second)
		}
		if s := m.Snapshot(now).Images; len(s) != 1 || s[0].Digest != "" {
			t.Errorf("%s: %+v", what, s)
		}
	}
}

// A registry that does not answer does not take all lookups, so that the images of others are asked for in time.
func TestSilentRegistry(t *testing.T) {
	text := "[nodes.a]\nlist = \"n1\"\n"
	for _, ref := range []string{"silent/1", "silent/2", "silent/3", "silent/4", "silent/5", "good/1"} {
		text += "[[image]]\nref = \"docker://" + ref[:len(ref)-2] + ".example/" + ref[len(ref)-1:] + "\"\nnodes = [\"a\"]\n"
	}
	list, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	m := New(Now{Wall: time.Unix(1e9, 0)}, list, nil, 1)
	asked := map[string]int{}
	for _, a := range m.Step(Now{Wall: time.Unix(1e9, 0)}, EvTick{}) {
		if a, ok := a.(ActLookup); ok {
			asked[registry(a.Lookup.Image.Ref)]++
		}
	}
	if asked["good.example"] != 1 || asked["silent.example"] == 0 {
		t.Errorf("asked %v", asked)
	}
}

// The controller's own cache keeps what is listed also when something else in the list is never found, and is told again what it
// could not note.
func TestOwnKeeps(t *testing.T) {
	b := newBench(t, images("r.example/good:1", "r.example/bad:1"), nil)
	b.lookup, b.answer, b.pushed = goodOnly(nil), newCacheNode().answer, committed
	kept, wants, broken := 0, 0, false
	b.keep = func(w []Wish) *EvSaved {
		if kept, wants = kept+1, len(w); broken {
			return &EvSaved{"disk full"}
		}
		return nil
	}
	b.rest(10 * time.Minute)
	if kept == 0 || wants != 1 {
		t.Fatalf("kept %d times, the last time %d images", kept, wants)
	}
	before := kept
	broken = true
	b.does(EvSaved{"disk full"})
	b.rest(5 * time.Minute)
	if n := kept - before; n < 4 || n > 6 {
		t.Errorf("told %d times more in 5 minutes", n)
	}
	broken = false
	b.does(EvSaved{})
	b.rest(time.Minute)
	before = kept
	b.rest(5 * time.Minute)
	if kept != before {
		t.Error("told again without need")
	}
}

// goodOnly is a registry that has r.example/good:1 and nothing else. tries, which may be nil, counts what is asked for in vain.
func goodOnly(tries *int) func(l *Lookup) *EvFound {
	return func(l *Lookup) *EvFound {
		if strings.Contains(l.Image.Ref, "good") {
			return tagOf(l)
		}
		if tries != nil {
			*tries++
		}
		return &EvFound{Why: "503"}
	}
}

// An image that is never found, because its registry is away or its name is mistyped, holds up no other of the same node. Only where an earlier
// controller may have found it, and the node has what somebody wants, the others wait until it was asked for triesAlone times.
func TestNeverFound(t *testing.T) {
	for _, c := range []struct {
		name   string
		edit   bool // the image that is never found is added later
		state  *State
		wanted int64
		waits  bool
	}{
		{"a new cluster", false, nil, 0, false},
		{"a lost state", false, nil, 5, true},
		{"a state of before", false, &State{Version: 1}, 5, false},
		{"a state of who had lost his", false, &State{Version: 1, Blind: true}, 5, true},
		{"an edit", true, &State{Version: 1}, 5, false},
	} {
		list, err := Parse([]byte(images("r.example/bad:1", "r.example/good:1")))
		if err != nil {
			t.Fatal(err)
		}
		b := newBench(t, images("r.example/good:1"), c.state)
		if !c.edit {
			b.m = New(b.now, list, c.state, 1)
		}
		n, tries, blind := newCacheNode(), 0, false
		b.lookup = goodOnly(&tries)
		b.answer = func(q *Query) *EvAnswer {
			ev := n.answer(q)
			ev.Answer.Wanted += c.wanted
			return ev
		}
		b.pushed = func(p *Push) *EvPushed {
			if tries < triesAlone == c.waits {
				t.Errorf("%s: pushed after %d tries", c.name, tries)
			}
			n.commit(p)
			return committed(p)
		}
		b.save = func(s *State) {
			if blind = s.Blind; blind != (tries < triesAlone && (c.state == nil || c.state.Blind)) {
				t.Errorf("%s: after %d tries the state says %v", c.name, tries, blind)
			}
		}
		b.rest(2 * time.Second)
		if c.edit {
			b.does(EvList{list})
		}
		b.rest(10 * time.Minute)
		if len(b.pushes) != 1 || blind {
			t.Errorf("%s: pushed %d times, blind %v", c.name, len(b.pushes), blind)
		}
	}
}

// A group whose nodes come from another source has those of before until the new source was read, also where that fails.
func TestEditSource(t *testing.T) {
	const image = "[[image]]\nref = \"docker://r.example/torch:1\"\nnodes = [\"a\"]\n"
	for _, before := range []string{"list = \"n[1-3]\"", "file = \"/old\"", "command = \"old\""} {
		for _, after := range []string{"file = \"/new\"", "command = \"new\""} {
			parse := func(source string) *List {
				list, err := Parse([]byte("[nodes.a]\n" + source + "\n" + image))
				if err != nil {
					t.Fatal(err)
				}
				return list
			}
			now := Now{Wall: time.Unix(1e9, 0)}
			m := New(now, parse(before), nil, 1)
			// read has the group read, which ends so.
			read := func(ev EvNodes) GroupStatus {
				ev.Group = "a"
				now.Since += m.list.CatchUp
				for _, a := range m.Step(now, EvTick{}) {
					if _, ok := a.(ActNodes); ok {
						m.Step(now, ev)
					}
				}
				return m.Snapshot(now).Groups[0]
			}
			read(EvNodes{Names: []string{"n1", "n2", "n3"}})
			m.Step(now, EvList{parse(after)})
			if g := m.Snapshot(now).Groups[0]; g.Nodes != 3 {
				t.Errorf("%s to %s, not read yet: %+v", before, after, g)
			}
			if g := read(EvNodes{Why: "exit status 1"}); g.Nodes != 3 || g.Stale != "exit status 1" {
				t.Errorf("%s to %s, failed: %+v", before, after, g)
			}
			if g := read(EvNodes{Names: []string{"n4"}}); g.Nodes != 1 || g.Members[0] != "n4" || g.Stale != "" {
				t.Errorf("%s to %s, read: %+v", before, after, g)
			}
			m.Step(now, EvList{parse("list = \"n[5-6]\"")})
			if g := m.Snapshot(now).Groups[0]; g.Nodes != 2 || g.Members[0] != "n5" {
				t.Errorf("back to a list: %+v", g)
			}
		}
	}
}
