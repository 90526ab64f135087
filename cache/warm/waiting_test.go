package warm

import (
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// lone is a controller of one image for one node, which lacks it and is full whenever a push to it ends.
type lone struct {
	m      *Machine
	now    Now
	digest digest.Digest
	room   int64
	pushes []Push
	runs   bool // a push does not end by itself
}

func newLone(t *testing.T) *lone {
	t.Helper()
	list, err := Parse([]byte("[nodes.a]\nlist = \"n1\"\n[[image]]\nref = \"docker://r.example/torch:1\"\nnodes = [\"a\"]\n"))
	if err != nil {
		t.Fatal(err)
	}
	l := &lone{now: Now{Wall: time.Unix(1e9, 0)}, digest: digest.FromString("image"), room: 5}
	l.m = New(l.now, list, nil, 1)
	l.does(EvTick{})
	return l
}

func (l *lone) does(ev Event) {
	acts := l.m.Step(l.now, ev)
	for ; len(acts) > 0; acts = acts[1:] {
		switch a := acts[0].(type) {
		case ActLookup:
			acts = append(acts, l.m.Step(l.now, EvFound{Lookup: a.Lookup, Tags: []Tag{{Ref: a.Lookup.Image.Ref, List: l.digest, Variants: []Found{{"", "torch", l.digest, 1}}}}})...)
		case ActAsk:
			q := a.Queries[0]
			acts = append(acts, l.m.Step(l.now, EvAnswer{Query: q, Answer: Answer{Room: l.room, Images: make([]Holding, len(q.Images))}})...)
		case ActPush:
			if l.pushes = append(l.pushes, a.Push); !l.runs {
				acts = append(acts, l.m.Step(l.now, l.full())...)
			}
		}
	}
}

// full says that there was no room for the last push.
func (l *lone) full() EvPushed {
	return EvPushed{l.pushes[len(l.pushes)-1].ID, []Row{{Node: "n1", Outcome: Full, Why: "needs 9", Needs: 9}}, ""}
}

func (l *lone) rest(d time.Duration) NodeStatus {
	for range d / time.Second {
		l.now.Since, l.now.Wall = l.now.Since+time.Second, l.now.Wall.Add(time.Second)
		l.does(EvTick{})
	}
	return l.m.Snapshot(l.now).Images[0].Nodes[0]
}

// A full node has no next try as long as it waits for room, and one when it says that it has more.
func TestFullHasNoNext(t *testing.T) {
	l := newLone(t)
	if s := l.rest(time.Hour); len(l.pushes) != 1 || s.State != NodeFull || s.Reason != "needs 9" || !s.Next.IsZero() {
		t.Errorf("no room: %d pushes, %+v", len(l.pushes), s)
	}
	l.room = 20
	l.rest(l.m.list.CatchUp + time.Second)
	l.room = 30 // more than it had at the second failure, which is tried again after a longer time
	if s := l.rest(l.m.list.CatchUp); len(l.pushes) != 2 || s.State != NodeFull || !s.Next.After(l.now.Wall) {
		t.Errorf("room: %d pushes, %+v at %v", len(l.pushes), s, l.now.Wall)
	}
}

// What becomes of a ring whose digest has moved says nothing of the new one, which may be smaller.
func TestOldDigestFull(t *testing.T) {
	l := newLone(t)
	l.runs = true
	l.rest(l.m.list.CatchUp)
	old := l.digest
	l.digest = digest.FromString("smaller")
	l.rest(l.m.list.Every + time.Second)
	if len(l.pushes) != 1 || l.pushes[0].Digest != old {
		t.Fatalf("pushes %+v", l.pushes)
	}
	l.does(l.full())
	if s := l.rest(l.m.list.CatchUp + time.Second); len(l.pushes) != 2 || l.pushes[1].Digest != l.digest || s.State != NodeWarming {
		t.Errorf("%d pushes, %+v", len(l.pushes), s)
	}
}
