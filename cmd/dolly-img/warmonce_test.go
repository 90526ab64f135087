package main

import (
	"context"
	"io"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/dolly-img/dolly-img/cache/warm"
)

// onceNode is one node and a registry.
type onceNode struct {
	found, named digest.Digest
	liar         bool // it lacks whatever it has committed
	foreign      bool // its name belongs to another owner
	wishes       []warm.Wish
	pushes       int
	broken       error // of a second image
	lookups      int   // of that
}

// sureError is one that the same question soon changes nothing about, or not.
type sureError bool

func (sureError) Error() string { return "it fails" }
func (s sureError) Sure() bool  { return bool(s) }

func (o *onceNode) Nodes(context.Context, *warm.Group) ([]string, error) { return []string{"n1"}, nil }

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
			a.Images = append(a.Images, h)
		}
		answer(q, a, nil)
	}
}

func (o *onceNode) Push(_ context.Context, p *warm.Push, _ <-chan int64, _ func(int64, time.Duration)) ([]warm.Row, error) {
	o.pushes++
	if o.foreign {
		return []warm.Row{{Node: "n1", Outcome: warm.Conflict, Why: "of the warmer x"}}, nil
	}
	o.named = p.Digest
	return []warm.Row{{Node: "n1", Outcome: warm.Committed}}, nil
}

func (o *onceNode) Keep(context.Context, []warm.Wish) error { return nil }

// A run that goes by the list once ends also where a node lacks what it has just committed, and leaves no wishes for what is over: what a name led to
// before, and what a name of another owner leads to.
func TestOnceEnds(t *testing.T) {
	moved, old := digest.FromString("moved"), digest.FromString("old")
	for what, c := range map[string]struct {
		node  onceNode
		state warm.NodeState
	}{
		"liar":    {onceNode{found: moved, named: old, liar: true}, warm.NodeFailed},
		"moved":   {onceNode{found: moved, named: old}, warm.NodeWarm},
		"foreign": {onceNode{found: moved, named: old, foreign: true}, warm.NodeConflict},
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
				if n := s.Images[0].Nodes[0]; n.State != c.state || node.pushes != 1 {
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
