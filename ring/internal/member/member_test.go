package member

import (
	"crypto/sha256"
	"encoding/json"
	"testing"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/dolly-img/dolly-img/ring/leaf"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

const memberSize = 6 << 20 // one mark inside, one at the end

func sumOf(s string) []byte { h := sha256.Sum256([]byte(s)); return h[:] }

// memberAt returns a machine of one blob in a phase, reached by the real events.
func memberAt(t *testing.T, phase Phase) *Machine {
	t.Helper()
	m := New([]v1.Descriptor{{Size: memberSize, Digest: digest.NewDigestFromBytes(digest.SHA256, sumOf("all"))}}, wire.MarkEvery)
	m.Step(EvHeld{Held: []int64{0}})
	for _, ev := range []struct {
		reach Phase
		ev    any
	}{
		{Started, EvMsg{&wire.Start{}}},
		{Started, EvMsg{&wire.Feed{Link: 1, Generation: 1}}},
		{Started, EvOpen{1, 1}},
		{Complete, EvFrame{1, 0, 0, 4 << 20, false}},
		{Complete, EvFrame{1, 0, 4 << 20, 2 << 20, false}},
		{Complete, EvSum{0, 4 << 20, sumOf("mark"), false}},
		{Complete, EvSum{0, memberSize, sumOf("all"), true}},
		{Complete, EvMsg{&wire.Marks{Marks: []wire.Mark{{Offset: 4 << 20, Sum: sumOf("mark")}, {Offset: memberSize, Sum: sumOf("all"), Final: true}}}}},
		{Complete, EvDurable{0}},
		{Verified, EvPrepared{}},
		{Publishing, EvMsg{&wire.Commit{}}},
		{Committed, EvPublished{}},
	} {
		if ev.reach <= phase {
			m.Step(ev.ev)
		}
	}
	if m.phase != phase {
		t.Fatalf("reached phase %d instead of %d: %v", m.phase, phase, m.failed)
	}
	return m
}

func did[A Action](out []Action) (a A, ok bool) {
	for _, x := range out {
		if a, ok = x.(A); ok {
			return a, true
		}
	}
	return a, false
}

func said[M wire.Message](out []Action) (m M, ok bool) {
	for _, x := range out {
		if s, is := x.(ActSay); is {
			if m, ok = s.Msg.(M); ok {
				return m, true
			}
		}
	}
	return m, false
}

// Nothing is published in any phase but one, and there only on COMMIT.
func TestMemberCommitsOnlyVerified(t *testing.T) {
	for p := Offered; p <= Committed; p++ {
		m := memberAt(t, p)
		out := m.Step(EvMsg{&wire.Commit{}})
		if _, published := did[ActPublish](out); published != (p == Verified) {
			t.Errorf("phase %d: published %v", p, published)
		}
		if failed := m.phase == Failed; failed != (p < Verified) {
			t.Errorf("phase %d: failed %v", p, failed)
		}
	}
}

// However many probes a server sends, a node has a bounded number of them under way.
func TestMemberBoundsProbes(t *testing.T) {
	m := memberAt(t, Offered)
	tried := 0
	probe := func(id uint32) {
		if _, ok := did[ActReach](m.Step(EvMsg{&wire.Probe{Probe: id}})); ok {
			tried++
		}
	}
	for id := range uint32(10 * maxProbed) {
		probe(id)
	}
	if tried != maxProbed {
		t.Errorf("%d are under way", tried)
	}
	for id := range uint32(2) {
		if p, ok := said[*wire.Probed](m.Step(EvReached{Probe: id})); !ok || p.Probe != id {
			t.Errorf("said %v", p)
		}
		probe(1000 + id)
	}
	if tried != maxProbed+2 {
		t.Errorf("%d were tried", tried)
	}
}

// A stale generation never writes.
func TestMemberGenerations(t *testing.T) {
	m := memberAt(t, Started)
	frame := EvFrame{1, 0, 0, 100, false}
	if _, ok := did[ActAccept](m.Step(frame)); !ok {
		t.Fatal("a good frame was refused")
	}
	out := m.Step(EvMsg{&wire.Feed{Link: 2, Generation: 2}})
	if _, ok := did[ActCloseFeed](out); !ok {
		t.Error("the old feed stays open")
	}
	if n, _ := said[*wire.Need](out); n == nil || len(n.Needs) != 1 || n.Needs[0] != [2]int64{0, 100} {
		t.Errorf("says it needs %+v", n)
	}
	for name, ev := range map[string]any{
		"frame of the old feed":            EvFrame{1, 0, 100, 100, false},
		"old link":                         EvOpen{1, 1},
		"other link":                       EvOpen{7, 2},
		"frame before its link was opened": EvFrame{2, 0, 100, 100, false},
	} {
		if r, ok := did[ActRefuse](m.Step(ev)); !ok || r.Status == wire.LinkHelloOK {
			t.Errorf("%s: accepted", name)
		}
	}
	if out := m.Step(EvMsg{&wire.Feed{Link: 1, Generation: 1}}); len(out) != 0 {
		t.Errorf("an old FEED caused %v", out)
	}
	m.Step(EvOpen{2, 2})
	if r, ok := did[ActRefuse](m.Step(EvOpen{2, 2})); !ok || r.Status != wire.LinkHelloStale {
		t.Error("two connections for one link")
	}
	if out := m.Step(EvFeedEnd{1, 1, false, wire.CodeNetwork, ""}); len(out) != 0 {
		t.Errorf("the end of the old feed caused %v", out)
	}
	if _, ok := did[ActAccept](m.Step(EvFrame{2, 0, 100, 100, false})); !ok {
		t.Error("the new feed is refused")
	}
}

func TestMemberFramesInOrder(t *testing.T) {
	for name, f := range map[string]EvFrame{
		"repeated":     {1, 0, 0, 100, false},
		"gap":          {1, 0, 200, 100, false},
		"beyond":       {1, 0, 100, memberSize, false},
		"unknown blob": {1, 9, 0, 1, false},
	} {
		m := memberAt(t, Started)
		m.Step(EvFrame{1, 0, 0, 100, false})
		if _, ok := did[ActAccept](m.Step(f)); ok {
			t.Errorf("%s: accepted", name)
		}
		if m.blobs[0].accepted != 100 {
			t.Errorf("%s: received %d", name, m.blobs[0].accepted)
		}
	}
}

// Blobs come in travelling order, those that are held left out.
func TestMemberBlobsInOrder(t *testing.T) {
	var descs []v1.Descriptor
	for _, s := range []string{"a", "b", "c"} {
		descs = append(descs, v1.Descriptor{Size: 10, Digest: digest.FromString(s)})
	}
	m := New(descs, wire.MarkEvery)
	m.Step(EvHeld{Held: []int64{0, 10, 0}})
	m.Step(EvMsg{&wire.Start{}})
	m.Step(EvMsg{&wire.Feed{Link: 1, Generation: 1}})
	m.Step(EvOpen{1, 1})
	for _, f := range []struct {
		EvFrame
		good bool
	}{{EvFrame{1, 2, 0, 10, false}, false}, {EvFrame{1, 1, 0, 10, false}, false}, {EvFrame{1, 0, 0, 10, false}, true}, {EvFrame{1, 1, 0, 10, false}, false}, {EvFrame{1, 2, 0, 10, false}, true}} {
		if _, ok := did[ActAccept](m.Step(f.EvFrame)); ok != f.good {
			t.Errorf("blob %d: accepted %v", f.Blob, ok)
		}
	}
}

// A stream's final mark shows that the feeder ended too early.
func TestMemberStreamEndsEarly(t *testing.T) {
	m := New([]v1.Descriptor{{Size: -1}}, wire.MarkEvery)
	m.Step(EvHeld{Held: []int64{0}})
	m.Step(EvMsg{&wire.Start{}})
	m.Step(EvMsg{&wire.Feed{Link: 1, Generation: 1}})
	m.Step(EvOpen{1, 1})
	m.Step(EvFrame{1, 0, 0, 10, false})
	m.Step(EvFeedEnd{1, 1, true, wire.CodeNone, ""})
	out := m.Step(EvMsg{&wire.Marks{Marks: []wire.Mark{{Offset: 20, Sum: sumOf("all"), Final: true}}}})
	if l, _ := said[*wire.Link](out); l == nil || l.State != wire.LinkDown {
		t.Errorf("says %+v", l)
	}
}

// Wrong bytes send the node back to its last good mark, in whatever order sums and
// marks come, and nothing of them is kept.
func TestMemberFallsBack(t *testing.T) {
	mark := EvMsg{&wire.Marks{Marks: []wire.Mark{{Offset: 4 << 20, Sum: sumOf("mark")}}}}
	final := EvMsg{&wire.Marks{Marks: []wire.Mark{{Offset: memberSize, Sum: sumOf("all"), Final: true}}}}
	good := EvSum{0, 4 << 20, sumOf("mark"), false}
	for name, c := range map[string]struct {
		evs       []any
		off, good int64
	}{
		"mark then sum":  {[]any{mark, EvSum{0, 4 << 20, sumOf("x"), false}}, 4 << 20, 0},
		"sum then mark":  {[]any{EvSum{0, 4 << 20, sumOf("x"), false}, mark}, 4 << 20, 0},
		"final then sum": {[]any{mark, good, final, EvSum{0, memberSize, sumOf("x"), true}}, memberSize, 4 << 20},
		"sum then final": {[]any{good, EvSum{0, memberSize, sumOf("x"), true}, mark, final}, memberSize, 4 << 20},
	} {
		m := memberAt(t, Started)
		m.Step(EvFrame{1, 0, 0, 4 << 20, false})
		m.Step(EvFrame{1, 0, 4 << 20, 2 << 20, false})
		var out []Action
		for _, ev := range c.evs {
			out = append(out, m.Step(ev)...)
		}
		f, _ := said[*wire.Fallback](out)
		if f == nil || *f != (wire.Fallback{Link: 1, Generation: 1, Offset: c.off, Good: c.good}) {
			t.Errorf("%s: said %+v", name, f)
		}
		if _, ok := did[ActReset](out); !ok {
			t.Errorf("%s: goes on", name)
		}
		if _, settled := did[ActSettle](out); settled {
			t.Errorf("%s: made durable", name)
		}
		// Not before the driver is back does it say what it needs, and only to the newest feed.
		if r, ok := did[ActRefuse](m.Step(EvFrame{1, 0, c.good, 100, false})); !ok || r.Status == wire.LinkHelloOK {
			t.Errorf("%s: takes frames of the feed that lied", name)
		}
		if n, _ := said[*wire.Need](m.Step(EvMsg{&wire.Feed{Link: 2, Generation: 2}})); n != nil {
			t.Errorf("%s: said %+v before it was back", name, n)
		}
		if n, _ := said[*wire.Need](m.Step(EvReset{})); n == nil || n.Link != 2 || n.Needs[0] != [2]int64{0, c.good} {
			t.Errorf("%s: back, it said %+v", name, n)
		}
		// The right bytes are judged by the same marks.
		m.Step(EvOpen{2, 2})
		m.Step(EvFrame{2, 0, c.good, memberSize - int(c.good), false})
		if c.good == 0 {
			m.Step(good)
		}
		m.Step(final)
		if _, settled := did[ActSettle](m.Step(EvSum{0, memberSize, sumOf("all"), true})); !settled {
			t.Errorf("%s: the right bytes are not made durable", name)
		}
	}
}

// A claim is what marks say of it.
func TestMemberClaims(t *testing.T) {
	claim := func() *Machine {
		m := New([]v1.Descriptor{{Size: memberSize, Digest: digest.NewDigestFromBytes(digest.SHA256, sumOf("all"))}}, wire.MarkEvery)
		m.Step(EvHeld{Held: []int64{5 << 20}})
		m.Step(EvMsg{&wire.Start{}})
		return m
	}
	m := claim()
	if n, _ := said[*wire.Need](m.Step(EvMsg{&wire.Feed{Link: 1, Generation: 1}})); n == nil || n.Needs[0] != [2]int64{0, 4 << 20} {
		t.Fatalf("says it needs %+v", n)
	}
	m.Step(EvSum{0, 4 << 20, sumOf("x"), false})
	out := m.Step(EvMsg{&wire.Marks{Marks: []wire.Mark{{Offset: 4 << 20, Sum: sumOf("mark")}}}})
	if f, _ := said[*wire.Fallback](out); f == nil || f.Good != 0 {
		t.Errorf("a wrong claim: says %+v", f)
	}

	// The part of a longer stream.
	m = New([]v1.Descriptor{{Size: -1}}, wire.MarkEvery)
	m.Step(EvHeld{Held: []int64{8 << 20}})
	m.Step(EvMsg{&wire.Start{}})
	out = m.Step(EvMsg{&wire.Marks{Marks: []wire.Mark{{Offset: 5 << 20, Sum: sumOf("all"), Final: true}}}})
	if f, _ := said[*wire.Fallback](out); f == nil || f.Good != 0 || m.phase != Started {
		t.Errorf("a claim behind the end: says %+v", f)
	}
}

// What cannot be put right by other bytes ends the node.
func TestMemberFails(t *testing.T) {
	for name, ev := range map[string]any{
		"not as offered":  EvMsg{&wire.Marks{Marks: []wire.Mark{{Offset: memberSize, Sum: sumOf("x"), Final: true}}}},
		"other length":    EvMsg{&wire.Marks{Marks: []wire.Mark{{Offset: 7, Sum: sumOf("all"), Final: true}}}},
		"malformed mark":  EvMsg{&wire.Marks{Marks: []wire.Mark{{Blob: 5, Sum: sumOf("all")}}}},
		"mark inside":     EvMsg{&wire.Marks{Marks: []wire.Mark{{Offset: 1 << 20, Sum: sumOf("mark")}}}},
		"mark behind":     EvMsg{&wire.Marks{Marks: []wire.Mark{{Offset: 8 << 20, Sum: sumOf("mark")}}}},
		"many addresses":  EvMsg{&wire.Feed{Link: 2, Generation: 2, Addrs: make([]string, maxAddrs+1)}},
		"many to dial":    EvMsg{&wire.Dial{Link: 2, Generation: 2, Addrs: make([]string, maxAddrs+1)}},
		"many to probe":   EvMsg{&wire.Probe{Addrs: make([]string, maxAddrs+1)}},
		"unasked message": EvMsg{&wire.Pong{}},
	} {
		m := memberAt(t, Started)
		m.Step(EvFrame{1, 0, 0, 4 << 20, false})
		m.Step(EvFrame{1, 0, 4 << 20, 2 << 20, false})
		out := m.Step(ev)
		f, _ := said[*wire.Fail](out)
		if _, over := did[ActRelease](out); m.phase != Failed || f == nil || !over {
			t.Errorf("%s: phase %d, said %v", name, m.phase, f)
		}
	}
}

// What is stored may be passed on only below a good mark.
func TestMemberReadableBelowMarks(t *testing.T) {
	m := memberAt(t, Started)
	m.Step(EvFrame{1, 0, 0, 4 << 20, false})
	if _, ok := did[ActGood](m.Step(EvSum{0, 4 << 20, sumOf("mark"), false})); ok {
		t.Error("readable before its mark came")
	}
	out := m.Step(EvMsg{&wire.Marks{Marks: []wire.Mark{{Offset: 4 << 20, Sum: sumOf("mark")}}}})
	if g, ok := did[ActGood](out); !ok || g.Offset != 4<<20 {
		t.Errorf("after the mark: %v", out)
	}
	// All marks come again after a resume.
	if out := m.Step(EvMsg{&wire.Marks{Marks: []wire.Mark{{Offset: 4 << 20, Sum: sumOf("mark")}}}}); len(out) != 0 || len(m.blobs[0].marks) != 0 {
		t.Errorf("a repeated mark caused %v, %d kept", out, len(m.blobs[0].marks))
	}
}

// A server that comes back hears again what it may have missed.
func TestMemberResume(t *testing.T) {
	if v, _ := said[*wire.Verified](memberAt(t, Verified).Step(EvResume{})); v == nil {
		t.Error("does not say VERIFIED again")
	}
	if v, _ := said[*wire.Committed](memberAt(t, Committed).Step(EvResume{})); v == nil {
		t.Error("does not say COMMITTED again")
	}
	m := memberAt(t, Started)
	m.Step(EvFailure{wire.Errorf(wire.CodeStore, "disk")})
	if v, _ := said[*wire.Fail](m.Step(EvResume{})); v == nil {
		t.Error("does not say FAIL again")
	}
}

func TestMemberFinalRecordTooEarly(t *testing.T) {
	m := memberAt(t, Started)
	m.Step(EvFrame{1, 0, 0, 100, false})
	l, _ := said[*wire.Link](m.Step(EvFeedEnd{1, 1, true, wire.CodeNone, ""}))
	if l == nil || l.State != wire.LinkDown {
		t.Errorf("says %+v", l)
	}
}

// A server that says more marks than any blob has bytes for costs a node a bounded number of them, and each offset is
// kept once.
func TestMemberMarksAreBounded(t *testing.T) {
	m := New([]v1.Descriptor{{Size: 1 << 62}, {Size: -1}}, wire.MarkEvery)
	m.Step(EvHeld{Held: []int64{0, 0}})
	m.Step(EvMsg{&wire.Start{}})
	for round := range 3 {
		for i := range int64(maxMarks) {
			k := wire.Mark{Blob: round / 2, Offset: (i + 1) * wire.MarkEvery, Sum: sumOf("mark")}
			m.Step(EvMsg{&wire.Marks{Marks: []wire.Mark{k}}})
			if round == 1 && i == 9 {
				break // again, as after a resume
			}
		}
	}
	if all := len(m.blobs[0].marks) + len(m.blobs[1].marks); all != maxMarks || m.marks != all || m.phase != Started {
		t.Errorf("%d marks are kept, %d are counted, want %d; phase %d", all, m.marks, maxMarks, m.phase)
	}
	// What is compared makes room.
	m.Step(EvSum{0, wire.MarkEvery, sumOf("mark"), false})
	if m.marks != maxMarks-1 || m.blobs[0].good != wire.MarkEvery {
		t.Errorf("%d marks wait after a comparison, %d bytes are good", m.marks, m.blobs[0].good)
	}
}

// The mark of a leaf speaks for that leaf only. If one is left out, the blob's digest judges what is behind it.
func TestMemberLeaves(t *testing.T) {
	const leaves, size = 3, 3*wire.MarkEvery + 1
	for _, c := range []struct {
		media   string
		without int64 // the mark that is left out; 0: none
		good    int64 // after all other marks
		digest  digest.Digest
	}{
		{leaf.MediaType, 0, 3 * wire.MarkEvery, leaf.Digest(sumOf("all"))},
		{leaf.MediaType, 2, wire.MarkEvery, leaf.Digest(sumOf("all"))},
		{"", 2, 3 * wire.MarkEvery, digest.NewDigestFromBytes(digest.SHA256, sumOf("all"))},
	} {
		m := New([]v1.Descriptor{{MediaType: c.media, Size: size}}, wire.MarkEvery)
		m.Step(EvHeld{Held: []int64{0}})
		m.Step(EvMsg{&wire.Start{}})
		m.Step(EvMsg{&wire.Feed{Link: 1, Generation: 1}})
		m.Step(EvOpen{1, 1})
		m.Step(EvFrame{1, 0, 0, size, false})
		for k := int64(1); k <= leaves; k++ {
			if k != c.without {
				m.Step(EvMsg{&wire.Marks{Marks: []wire.Mark{{Offset: k * wire.MarkEvery, Sum: sumOf(string(rune(k)))}}}})
			}
			m.Step(EvSum{0, k * wire.MarkEvery, sumOf(string(rune(k))), false})
		}
		if good := m.Position(0).Good; good != c.good {
			t.Errorf("%q without mark %d: %d bytes are good, want %d", c.media, c.without, good, c.good)
		}
		m.Step(EvMsg{&wire.Marks{Marks: []wire.Mark{{Offset: size, Sum: sumOf("all"), Final: true}}}})
		out := m.Step(EvSum{0, size, sumOf("all"), true})
		if a, ok := did[ActSettle](out); !ok || a.Final.Digest != c.digest || m.Position(0).Good != size {
			t.Errorf("%q without mark %d: settles %+v", c.media, c.without, a)
		}
	}
}

// START has to repeat the target of the ANSWER, once: after a resume it says what it says.
func TestStartRepeatsTarget(t *testing.T) {
	for _, tt := range []struct {
		answered, started string
		good              bool
	}{{"", "", true}, {`{"a":1}`, `{"a":1}`, true}, {`{"a":1}`, "", false}, {`{"a":1}`, `{"a":2}`, false}, {"", `{"a":1}`, false}} {
		m := New([]v1.Descriptor{{Size: 10}}, wire.MarkEvery)
		m.Step(EvHeld{Held: []int64{0}, Target: []byte(tt.answered)})
		m.Step(EvMsg{&wire.Start{Target: json.RawMessage(tt.started)}})
		if got := m.Phase() == Started; got != tt.good || !got && m.Failure().Code != wire.CodePolicy {
			t.Errorf("answered %q, started with %q: %v, %v", tt.answered, tt.started, m.Phase(), m.Failure())
		}
	}
}
