package warm

import (
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// A full node has no next try as long as it waits for room, and one when it says that it has more.
func TestFullHasNoNext(t *testing.T) {
	list, err := Parse([]byte("[nodes.a]\nlist = \"n1\"\n[[image]]\nref = \"docker://r.example/torch:1\"\nnodes = [\"a\"]\n"))
	if err != nil {
		t.Fatal(err)
	}
	now := Now{Wall: time.Unix(1e9, 0)}
	m := New(now, list, nil, 1)
	pushes, room, d := 0, int64(5), digest.FromString("image")
	step := func() NodeStatus {
		acts := m.Step(now, EvTick{})
		for ; len(acts) > 0; acts = acts[1:] {
			switch a := acts[0].(type) {
			case ActLookup:
				acts = append(acts, m.Step(now, EvFound{Lookup: a.Lookup, Tags: []Tag{{Ref: a.Lookup.Image.Ref, List: d, Variants: []Found{{"", "torch", d, 1}}}}})...)
			case ActAsk:
				q := a.Queries[0]
				acts = append(acts, m.Step(now, EvAnswer{Query: q, Answer: Answer{Room: room, Images: make([]Holding, len(q.Images))}})...)
			case ActPush:
				pushes++
				acts = append(acts, m.Step(now, EvPushed{a.Push.ID, []Row{{Node: "n1", Outcome: Full, Why: "needs 9", Needs: 9}}, ""})...)
			}
		}
		return m.Snapshot(now).Images[0].Nodes[0]
	}
	rest := func(d time.Duration) (s NodeStatus) {
		for range d / time.Second {
			now.Since, now.Wall = now.Since+time.Second, now.Wall.Add(time.Second)
			s = step()
		}
		return s
	}
	step()
	if s := rest(time.Hour); pushes != 1 || s.State != NodeFull || s.Reason != "needs 9" || !s.Next.IsZero() {
		t.Errorf("no room: %d pushes, %+v", pushes, s)
	}
	room = 20
	rest(list.CatchUp + time.Second)
	room = 30 // more than it had at the second failure, which is tried again after a longer time
	if s := rest(list.CatchUp); pushes != 2 || s.State != NodeFull || !s.Next.After(now.Wall) {
		t.Errorf("room: %d pushes, %+v at %v", pushes, s, now.Wall)
	}
}
