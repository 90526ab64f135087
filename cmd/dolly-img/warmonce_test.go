package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/dolly-img/dolly-img/cache/warm"
	"github.com/dolly-img/dolly-img/ring"
)

// onceNode is one node, or several that are always the same, and a registry.
type onceNode struct {
	found, named digest.Digest
	liar         bool // it lacks whatever it has committed
	foreign      bool // its name belongs to another owner, which it says from the push on
	known        bool // or before
	wishes       []warm.Wish
	pushes       int
	broken       error // of a second image
	lookups      int   // of that
	read         []string
	unread       error // of the list of a group
}

// sureError is one that the same question soon changes nothing about, or not.
type sureError bool

func (sureError) Error() string { return "it fails" }
func (s sureError) Sure() bool  { return bool(s) }

func (o *onceNode) Nodes(context.Context, *warm.Group) ([]string, error) { return o.read, o.unread }

func (o *onceNode) Lookup(_ context.Context, l *warm.Lookup) ([]warm.Tag, error) {
	if strings.HasSuffix(l.Image.Ref, "broken:1") {
		o.lookups++
		return nil, o.broken
	}
	return []warm.Tag{{Ref: l.Image.Ref, List: o.found, Variants: []warm.Found{{Name: "torch", Digest: o.found, Bytes: 1}}}}, nil
}

func (o *onceNode) Ask(_ context.Context, queries []*warm.Query, answer func(*warm.Query, warm.Answer, error)) {
	for _, q := range queries {
		if q.Wishes != nil {
			o.wishes = q.Wishes
		}
		a := warm.Answer{Room: 1e9}
		for _, i := range q.Images {
			h := warm.Holding{Named: o.named}
			if o.liar || o.named != i.Digest {
				h.Lacks = 1
			}
			if o.known || o.foreign && o.pushes > 0 {
				h.Conflict = "of the warmer x"
			}
			a.Images = append(a.Images, h)
		}
		answer(q, a, nil)
	}
}

func (o *onceNode) Push(_ context.Context, p *warm.Push, _ <-chan int64, _ func(warm.Progress)) ([]warm.Row, error) {
	o.pushes++
	if o.foreign {
		return []warm.Row{{Node: "n1", Outcome: warm.Conflict, Why: "of the warmer x"}}, nil
	}
	o.named = p.Digest
	var rows []warm.Row
	for _, n := range p.Nodes {
		rows = append(rows, warm.Row{Node: n, Outcome: warm.Committed})
	}
	return rows, nil
}

func (o *onceNode) Keep(context.Context, []warm.Wish) error { return nil }

// A run that goes by the list once ends also where a node lacks what it has just committed, and leaves no wishes for what is over: what a name led to
// before, and what a name of another owner leads to.
func TestOnceEnds(t *testing.T) {
	moved, old := digest.FromString("moved"), digest.FromString("old")
	for what, c := range map[string]struct {
		node   onceNode
		state  warm.NodeState
		pushes int
	}{
		"liar":    {onceNode{found: moved, named: old, liar: true}, warm.NodeFailed, 1},
		"moved":   {onceNode{found: moved, named: old}, warm.NodeWarm, 1},
		"foreign": {onceNode{found: moved, named: old, foreign: true}, warm.NodeConflict, 1},
		"known":   {onceNode{found: moved, named: old, known: true}, warm.NodeConflict, 0},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				list, err := warm.Parse([]byte("[defaults]\ncatch-up = \"5s\"\n[nodes.a]\nlist = \"n1\"\n[[image]]\nref = \"docker://r.example/torch:1\"\nnodes = [\"a\"]\n"))
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				node := c.node
				effects := &pushedOnce{Effects: &node, committed: map[held]bool{}}
				s, err := onceDone(ctx, warm.NewController(warm.Config{List: func() (*warm.List, error) { return list, nil }, Effects: effects}), io.Discard)
				if err != nil {
					t.Fatal(err)
				}
				if n := s.Images[0].Nodes[0]; n.State != c.state || node.pushes != c.pushes {
					t.Errorf("%d pushes, %+v", node.pushes, n)
				}
				if !node.liar && (len(node.wishes) != 1 || node.wishes[0].Digest != moved) {
					t.Errorf("it leaves the wishes %v", node.wishes)
				}
			})
		})
	}
}

// A source that says for sure that it cannot give an image is asked once, and the nodes get the other images at once. One that does not answer is
// waited for, which is said.
func TestOnceWaits(t *testing.T) {
	for sure, want := range map[sureError]struct {
		lookups int
		took    time.Duration
		said    string
	}{
		true:  {1, 10 * time.Second, `^$`},
		false: {3, time.Minute, `^waiting for r.example/broken:1: it fails; it is asked again at \d\d:\d\d:\d\d\n$`},
	} {
		synctest.Test(t, func(t *testing.T) {
			list, err := warm.Parse([]byte("[defaults]\ncatch-up = \"5s\"\nretry = \"10s..1m\"\n[nodes.a]\nlist = \"n1\"\n[[image]]\nref = \"docker://r.example/torch:1\"\nnodes = [\"a\"]\n" +
				"[[image]]\nref = \"docker://r.example/broken:1\"\nnodes = [\"a\"]\n"))
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			node := &onceNode{found: digest.FromString("x"), broken: sure}
			var said strings.Builder
			s, err := onceDone(t.Context(), warm.NewController(warm.Config{List: func() (*warm.List, error) { return list, nil }, Effects: node}), &said)
			if err != nil {
				t.Fatal(err)
			}
			if n := s.Images[0].Nodes[0]; n.State != warm.NodeWarm || node.lookups != want.lookups || time.Since(began) > want.took || !regexp.MustCompile(want.said).MatchString(said.String()) {
				t.Errorf("for sure: %v: %+v after %v and %d lookups; said %q", sure, n, time.Since(began), node.lookups, said.String())
			}
		})
	}
}

// A run is no full success where a list of nodes could not be read, an image could not be asked for, or a node cannot have it beside another one of its
// name, though all others are warm. It does not end before these are.
func TestOnceStatus(t *testing.T) {
	const image = "[[image]]\nref = \"docker://%s\"\nnodes = [\"a\", \"b\"]\n"
	torch := fmt.Sprintf(image, "r.example/torch:1")
	for what, c := range map[string]struct {
		node onceNode
		list string
		warm string
		want int
	}{
		"all":          {onceNode{read: []string{"n2"}}, torch, "[2]", ring.ExitAll},
		"group unread": {onceNode{unread: errors.New("exit status 1")}, torch, "[1]", ring.ExitPartial},
		"twins":        {onceNode{read: []string{"n2"}}, "[[image]]\nref = \"docker://torch:1\"\nnodes = [\"a\"]\n" + fmt.Sprintf(image, "docker.io/library/torch:1"), "[1 1]", ring.ExitPartial},
	} {
		synctest.Test(t, func(t *testing.T) {
			list, err := warm.Parse([]byte("[defaults]\ncatch-up = \"5s\"\n[nodes.a]\nlist = \"n1\"\n[nodes.b]\ncommand = \"x\"\n" + c.list))
			if err != nil {
				t.Fatal(err)
			}
			c.node.found = digest.FromString("x")
			s, err := onceDone(t.Context(), warm.NewController(warm.Config{List: func() (*warm.List, error) { return list, nil }, Effects: &c.node}), io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			var warm []int
			for _, i := range s.Images {
				warm = append(warm, i.Warm)
			}
			if got := onceStatus(s); got != c.want || fmt.Sprint(warm) != c.warm {
				t.Errorf("%s: exit %d, want %d, %v warm, want %s: %+v", what, got, c.want, warm, c.warm, s)
			}
			s.Images[0].Stale = "the registry is not there"
			if got := onceStatus(s); got != ring.ExitPartial {
				t.Errorf("%s, and a registry is away: exit %d", what, got)
			}
		})
	}
}

// A plan says where an image may not fit, and no more than that, since a node that lacks it cannot know what it shares with others. What is to be pushed before
// takes room, too.
func TestPlanRoom(t *testing.T) {
	a, b := digest.FromString("a"), digest.FromString("b")
	r := &rehearsal{bytes: map[digest.Digest]int64{a: 3e9, b: 2e9}, lacks: map[held]int64{{"n1", a}: -1, {"n2", a}: 1e9, {"n3", a}: -1, {"n1", b}: -1, {"n2", b}: -1, {"n3", b}: -1},
		room: map[string]int64{"n1": 2e9, "n2": 2e9, "n3": -1}, pushes: []warm.Push{{Name: "a", Digest: a, Nodes: []string{"n1", "n2", "n3"}}, {Name: "b", Digest: b, Nodes: []string{"n2", "n3"}}}}
	var out strings.Builder
	r.print(&out)
	const shared = ", and it needs less only where it shares layers with what stays there\n"
	want := "would push a " + shortDigest(a) + " to n[1-3]: 3.00 GB to each at most, 7.00 GB in all, 25.6s at 1 Gbit/s\n" +
		"  it may not fit on n1: there is room for 2.00 GB" + shared +
		"would push b " + shortDigest(b) + " to n[2-3]: 2.00 GB to each at most, 4.00 GB in all, 17.1s at 1 Gbit/s\n" +
		"  it may not fit on n2: there is room for 1.00 GB" + shared
	if out.String() != want {
		t.Errorf("%s, want\n%s", out.String(), want)
	}
}
