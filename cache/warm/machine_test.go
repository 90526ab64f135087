package warm

import (
	"fmt"
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
		ev := EvFound{Lookup: Lookup{Image: list.Images[0]}}
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
	if i := images[mostPairs]; len(images) != mostPairs+100 || i.State != ImageBlocked || !strings.HasPrefix(i.Reason, "n1 has 512 images before it") {
		t.Errorf("%d images, %+v", len(images), i)
	}
}
