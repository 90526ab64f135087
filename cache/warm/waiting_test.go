package warm

import (
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// lone is a controller of one image for one node, which lacks it and refuses whatever is pushed, since it is full or the name belongs to another one.
type lone struct {
	*bench
	digest digest.Digest
	bytes  int64
	room   int64
	most   int64
	says   Holding
	taken  bool
	wished []Wish
	runs   bool // a push does not end by itself

	silent  string // why the node does not answer
	refuses bool   // it does, and does not tell
	looked  int
	gone    bool // there is no such tag
}

func newLone(t *testing.T) *lone {
	t.Helper()
	l := &lone{bench: newBench(t, images("r.example/torch:1"), nil), digest: digest.FromString("image"), bytes: 1, room: 5}
	l.lookup = func(look *Lookup) *EvFound {
		if l.looked++; l.gone {
			return &EvFound{Why: "404", Sure: true}
		}
		return &EvFound{Tags: []Tag{{Ref: look.Image.Ref, List: l.digest, Variants: []Found{{"", "torch", l.digest, l.bytes}}}}}
	}
	l.answer = func(q *Query) *EvAnswer {
		if l.silent != "" {
			return &EvAnswer{Why: l.silent, Failed: l.refuses}
		}
		if q.Wishes != nil {
			l.wished = q.Wishes
		}
		return &EvAnswer{Answer: Answer{Room: l.room, Most: l.most, Images: slices.Repeat([]Holding{l.says}, len(q.Images))}}
	}
	l.pushed = func(*Push) *EvPushed {
		if l.runs {
			return nil
		}
		ev := l.refused()
		return &ev
	}
	l.does(EvTick{})
	return l
}

// refused is what becomes of the last push.
func (l *lone) refused() EvPushed {
	if l.taken {
		return EvPushed{l.pushes[len(l.pushes)-1].ID, []Row{{Node: "n1", Outcome: Conflict, Why: "refused: of the warmer x"}}, ""}
	}
	return EvPushed{l.pushes[len(l.pushes)-1].ID, []Row{{Node: "n1", Outcome: Full, Why: "needs 9", Needs: 9}}, ""}
}

func (l *lone) rest(d time.Duration) NodeStatus {
	l.bench.rest(d)
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

// A node is away since it does not answer, and has failed since it answers without telling what it holds, however long it could not be asked before.
func TestUnheardSince(t *testing.T) {
	l := newLone(t)
	l.silent = "silent"
	for _, refuses := range []bool{false, true, false} {
		l.refuses = refuses
		began := l.now.Wall
		want := map[bool]NodeState{false: NodeAway, true: NodeFailed}[refuses]
		if s := l.rest(10 * time.Minute); s.State != want || s.Since.Sub(began) > l.m.list.CatchUp+time.Second || s.Since.Before(began) {
			t.Errorf("since %v: %+v", began, s)
		}
	}
}

// A node that does not tell, or cannot be asked for a failure of this side, does not flap, however often that is.
func TestRefusalsAreNoLosses(t *testing.T) {
	l := newLone(t)
	l.refuses = true
	for range 10 {
		for _, l.silent = range []string{"keys: permission denied", ""} {
			l.rest(l.m.list.CatchUp)
		}
	}
	if n := l.m.nodes["n1"]; n.losses != 0 || n.away.why != "" {
		t.Errorf("%d losses, %+v", n.losses, n.away)
	}
}

// What is for sure is asked for again after every, and not less often each time: a tag may be made.
func TestSureIsAskedAgain(t *testing.T) {
	l := newLone(t)
	l.gone = true
	l.rest(l.m.list.Every)
	before := l.looked
	if l.rest(6 * l.m.list.Every); l.looked-before != 6 {
		t.Errorf("asked %d times", l.looked-before)
	}
}

// A name that somebody else has moved is moved back, and the push says where. One that leads to an earlier digest is not meant.
func TestMovedBack(t *testing.T) {
	l := newLone(t)
	l.runs, l.says = true, Holding{Lacks: 1, Named: digest.FromString("a sender's")}
	l.rest(l.m.list.CatchUp)
	if len(l.pushes) != 1 || !slices.Equal(l.pushes[0].Back, []string{"n1"}) {
		t.Fatalf("pushes %+v", l.pushes)
	}
	l.says = Holding{Named: l.digest}
	l.does(EvPushed{l.pushes[0].ID, []Row{{Node: "n1", Outcome: Committed}}, ""})
	l.rest(l.m.list.CatchUp)
	l.says, l.digest = Holding{Lacks: 1, Named: l.digest}, digest.FromString("newer")
	l.rest(l.m.list.Every + l.m.list.CatchUp)
	if len(l.pushes) != 2 || len(l.pushes[1].Back) != 0 {
		t.Errorf("pushes %+v", l.pushes[1:])
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
	l.does(l.refused())
	if s := l.rest(l.m.list.CatchUp + time.Second); len(l.pushes) != 2 || l.pushes[1].Digest != l.digest || s.State != NodeWarming {
		t.Errorf("%d pushes, %+v", len(l.pushes), s)
	}
}

// A node is not pushed to as long as its answer says that the name belongs to another owner, and is at once when one says that it does not. What the
// name leads to there is not wanted by this owner meanwhile. What only a push has found counts until the next answer, and is tried again after a time.
func TestConflict(t *testing.T) {
	other := digest.FromString("other")
	l := newLone(t)
	l.taken, l.says = true, Holding{Lacks: -1, Named: other, Conflict: "of the warmer x"}
	if s := l.rest(time.Hour); len(l.pushes) != 0 || s.State != NodeConflict || s.Reason != "of the warmer x" || !s.Next.IsZero() || len(l.wished) != 1 {
		t.Errorf("known before: %d pushes, %+v, wants %v", len(l.pushes), s, l.wished)
	}
	l.says.Conflict = ""
	s := l.rest(l.m.list.CatchUp + time.Second)
	if len(l.pushes) != 1 || s.State != NodeConflict || s.Reason != "refused: of the warmer x" || s.Next.IsZero() || len(l.wished) != 2 {
		t.Errorf("free by its answer: %d pushes, %+v, wants %v", len(l.pushes), s, l.wished)
	}
	if s := l.rest(2 * l.m.list.CatchUp); len(l.pushes) != 2 || s.State != NodeFailed || s.Reason != "refused: of the warmer x" {
		t.Errorf("refused, and free by its answer: %d pushes, %+v", len(l.pushes), s)
	}
	if l.rest(4 * time.Hour); len(l.pushes) < 6 || len(l.pushes) > 10 {
		t.Errorf("refused again and again: %d pushes", len(l.pushes))
	}
	l.runs = true // until there is one that is not refused yet
	for n := len(l.pushes); len(l.pushes) == n; {
		l.rest(time.Second)
	}
	n := len(l.pushes)
	l.does(l.refused())
	l.says.Conflict = "of the warmer y"
	if s := l.rest(l.m.list.CatchUp + time.Second); len(l.pushes) != n || s.State != NodeConflict || s.Reason != "of the warmer y" || !s.Next.IsZero() {
		t.Errorf("known after: %d pushes after %d, %+v", len(l.pushes), n, s)
	}
	l.says.Conflict = ""
	if l.rest(l.m.list.CatchUp + time.Second); len(l.pushes) != n+1 {
		t.Errorf("free again: %d pushes after %d", len(l.pushes), n)
	}
}

// A node whose answer proves that it lacks the room is full without a push, and is pushed to when an answer does not prove that any more.
func TestFullByAnswer(t *testing.T) {
	for name, c := range map[string]struct {
		bytes, room, most int64
		says              Holding
		reason            string
	}{
		"less room than it lacks":      {9, 5, 0, Holding{Lacks: 6}, "needs 6 B, and has room for 5 B"},
		"as much":                      {9, 5, 0, Holding{Lacks: 5}, ""},
		"it may share all of it":       {9, 5, 0, Holding{Lacks: -1}, ""},
		"unknown room":                 {9, -1, 0, Holding{Lacks: 6}, ""},
		"longer than the cache may be": {9, 5, 8, Holding{Lacks: -1}, "needs 9 B, and its cache may have 8 B"},
		"as long":                      {9, 5, 9, Holding{Lacks: -1}, ""},
		"all there, another name":      {9, 5, 8, Holding{}, ""},
	} {
		l := newLone(t)
		l.bytes, l.room, l.most, l.says, l.runs = c.bytes, c.room, c.most, c.says, true
		l.m = New(l.now, l.m.list, nil, 1)
		l.does(EvTick{})
		s := l.rest(10 * time.Minute)
		if want := min(1, len(c.reason)); len(l.pushes) != 1-want || want == 1 && (s.State != NodeFull || s.Reason != c.reason || !s.Next.IsZero()) {
			t.Errorf("%s: %d pushes, %+v", name, len(l.pushes), s)
		}
		l.room, l.most = 9, 0
		if l.rest(l.m.list.CatchUp + time.Second); len(l.pushes) != 1 {
			t.Errorf("%s: with room: %d pushes", name, len(l.pushes))
		}
	}
}
