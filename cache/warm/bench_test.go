package warm

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// bench is a world for one test: lookups, answers and pushes are functions.
type bench struct {
	m      *Machine
	now    Now
	lookup func(l *Lookup) *EvFound // nil: it hangs
	answer func(q *Query) *EvAnswer // nil: later
	pushed func(p *Push) *EvPushed  // nil: it runs
	keep   func(w []Wish) *EvSaved  // these two may be nil
	save   func(s *State)
	pushes []Push
	asks   []*Query
	looks  []string
	late   []struct {
		at time.Duration
		ev Event
	}
}

func newBench(t *testing.T, text string, state *State) *bench {
	t.Helper()
	list, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{now: Now{Wall: time.Unix(1e9, 0)}}
	b.m = New(b.now, list, state, 1)
	return b
}

func (b *bench) does(ev Event) {
	acts := b.m.Step(b.now, ev)
	for ; len(acts) > 0; acts = acts[1:] {
		switch a := acts[0].(type) {
		case ActLookup:
			b.looks = append(b.looks, a.Lookup.Image.Ref)
			if ev := b.lookup(&a.Lookup); ev != nil {
				ev.Lookup = a.Lookup
				acts = append(acts, b.m.Step(b.now, *ev)...)
			}
		case ActNodes:
		case ActAsk:
			for _, q := range a.Queries {
				b.asks = append(b.asks, q)
				if ev := b.answer(q); ev != nil {
					ev.Query = q
					acts = append(acts, b.m.Step(b.now, *ev)...)
				}
			}
		case ActKeep:
			if b.keep == nil {
				continue
			}
			if ev := b.keep(a.Wishes); ev != nil {
				acts = append(acts, b.m.Step(b.now, *ev)...)
			}
		case ActSave:
			if b.save != nil {
				b.save(a.State)
			}
		case ActPush:
			b.pushes = append(b.pushes, a.Push)
			if ev := b.pushed(&a.Push); ev != nil {
				ev.Push = a.Push.ID
				acts = append(acts, b.m.Step(b.now, *ev)...)
			}
		}
	}
}

func (b *bench) rest(d time.Duration) {
	for range d / time.Second {
		b.now.Since, b.now.Wall = b.now.Since+time.Second, b.now.Wall.Add(time.Second)
		for i := 0; i < len(b.late); i++ {
			if l := b.late[i]; l.at <= b.now.Since {
				b.late = append(b.late[:i:i], b.late[i+1:]...)
				i--
				b.does(l.ev)
			}
		}
		b.does(EvTick{})
	}
}

func dig(s string) digest.Digest { return digest.FromString(s) }

func tagOf(l *Lookup) *EvFound {
	ref := l.Image.Ref
	name := strings.TrimPrefix(ref, "docker://")
	var vs []Found
	for _, p := range l.Platforms {
		vs = append(vs, Found{p, name, dig(ref), 60})
	}
	return &EvFound{Tags: []Tag{{Ref: ref, List: dig(ref), Variants: vs}}}
}

// node is a simple cache.
type cacheNode struct {
	holds  map[digest.Digest]bool
	names  map[string]digest.Digest
	room   int64
	wishes []Wish
}

func newCacheNode() *cacheNode {
	return &cacheNode{holds: map[digest.Digest]bool{}, names: map[string]digest.Digest{}, room: -1}
}

func (c *cacheNode) answer(q *Query) *EvAnswer {
	if q.Wishes != nil {
		c.wishes = q.Wishes
	}
	a := Answer{Room: c.room}
	for _, w := range c.wishes {
		if c.holds[w.Digest] {
			a.Wanted += 60
		}
	}
	for _, i := range q.Images {
		h := Holding{Named: c.names[i.Name]}
		if !c.holds[i.Digest] {
			h.Lacks = 60
		}
		a.Images = append(a.Images, h)
	}
	return &EvAnswer{Answer: a}
}

func (c *cacheNode) commit(p *Push) {
	c.holds[p.Digest], c.names[p.Name] = true, p.Digest
}

func committed(p *Push) *EvPushed {
	ev := &EvPushed{}
	for _, n := range p.Nodes {
		ev.Rows = append(ev.Rows, Row{Node: n, Outcome: Committed})
	}
	return ev
}

func images(refs ...string) string {
	text := "[nodes.a]\nlist = \"n1\"\n"
	for _, r := range refs {
		text += fmt.Sprintf("[[image]]\nref = %q\nnodes = [\"a\"]\n", "docker://"+r)
	}
	return text
}
