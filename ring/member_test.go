package ring

import (
	"crypto/sha256"
	"testing"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

const memberSize = 6 << 20 // one mark inside, one at the end

func sumOf(s string) []byte { h := sha256.Sum256([]byte(s)); return h[:] }

// memberAt returns a member of one blob in a phase, reached by the real events.
func memberAt(t *testing.T, phase memberPhase) *member {
	t.Helper()
	m := newMember([]v1.Descriptor{{Size: memberSize, Digest: digest.NewDigestFromBytes(digest.SHA256, sumOf("all"))}})
	m.step(meHeld{[]int64{0}})
	for _, ev := range []struct {
		reach memberPhase
		ev    any
	}{
		{mStarted, meMsg{&wire.Start{}}},
		{mStarted, meMsg{&wire.Feed{Link: 1, Generation: 1}}},
		{mStarted, meOpen{1, 1}},
		{mComplete, meFrame{1, 0, 0, 4 << 20}},
		{mComplete, meFrame{1, 0, 4 << 20, 2 << 20}},
		{mComplete, meSum{0, 4 << 20, sumOf("mark"), false}},
		{mComplete, meSum{0, memberSize, sumOf("all"), true}},
		{mComplete, meMsg{&wire.Marks{Marks: []wire.Mark{{Offset: 4 << 20, Sum: sumOf("mark")}, {Offset: memberSize, Sum: sumOf("all"), Final: true}}}}},
		{mComplete, meDurable{0}},
		{mVerified, mePrepared{}},
		{mPublishing, meMsg{&wire.Commit{}}},
		{mCommitted, mePublished{}},
	} {
		if ev.reach <= phase {
			m.step(ev.ev)
		}
	}
	if m.phase != phase {
		t.Fatalf("reached phase %d instead of %d: %v", m.phase, phase, m.failed)
	}
	return m
}

func did[A action](out []action) (a A, ok bool) {
	for _, x := range out {
		if a, ok = x.(A); ok {
			return a, true
		}
	}
	return a, false
}

func said[M wire.Message](out []action) (m M, ok bool) {
	for _, x := range out {
		if s, is := x.(actSay); is {
			if m, ok = s.msg.(M); ok {
				return m, true
			}
		}
	}
	return m, false
}

// Nothing is published in any phase but one, and there only on COMMIT.
func TestMemberCommitsOnlyVerified(t *testing.T) {
	for p := mOffered; p <= mCommitted; p++ {
		m := memberAt(t, p)
		out := m.step(meMsg{&wire.Commit{}})
		if _, published := did[actPublish](out); published != (p == mVerified) {
			t.Errorf("phase %d: published %v", p, published)
		}
		if failed := m.phase == mFailed; failed != (p < mVerified) {
			t.Errorf("phase %d: failed %v", p, failed)
		}
	}
}

// However many probes a server sends, a node has a bounded number of them under way.
func TestMemberBoundsProbes(t *testing.T) {
	m := memberAt(t, mOffered)
	tried := 0
	probe := func(id uint32) {
		if _, ok := did[actReach](m.step(meMsg{&wire.Probe{Probe: id}})); ok {
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
		if p, ok := said[*wire.Probed](m.step(meReached{probe: id})); !ok || p.Probe != id {
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
	m := memberAt(t, mStarted)
	frame := meFrame{1, 0, 0, 100}
	if _, ok := did[actAccept](m.step(frame)); !ok {
		t.Fatal("a good frame was refused")
	}
	out := m.step(meMsg{&wire.Feed{Link: 2, Generation: 2}})
	if _, ok := did[actCloseFeed](out); !ok {
		t.Error("the old feed stays open")
	}
	if n, _ := said[*wire.Need](out); n == nil || len(n.Needs) != 1 || n.Needs[0] != [2]int64{0, 100} {
		t.Errorf("says it needs %+v", n)
	}
	for name, ev := range map[string]any{
		"frame of the old feed":            meFrame{1, 0, 100, 100},
		"old link":                         meOpen{1, 1},
		"other link":                       meOpen{7, 2},
		"frame before its link was opened": meFrame{2, 0, 100, 100},
	} {
		if r, ok := did[actRefuse](m.step(ev)); !ok || r.status == wire.HelloOK {
			t.Errorf("%s: accepted", name)
		}
	}
	if out := m.step(meMsg{&wire.Feed{Link: 1, Generation: 1}}); len(out) != 0 {
		t.Errorf("an old FEED caused %v", out)
	}
	m.step(meOpen{2, 2})
	if r, ok := did[actRefuse](m.step(meOpen{2, 2})); !ok || r.status != wire.HelloStale {
		t.Error("two connections for one link")
	}
	if out := m.step(meFeedEnd{1, 1, false, CodeNetwork, ""}); len(out) != 0 {
		t.Errorf("the end of the old feed caused %v", out)
	}
	if _, ok := did[actAccept](m.step(meFrame{2, 0, 100, 100})); !ok {
		t.Error("the new feed is refused")
	}
}

func TestMemberFramesInOrder(t *testing.T) {
	for name, f := range map[string]meFrame{
		"repeated":     {1, 0, 0, 100},
		"gap":          {1, 0, 200, 100},
		"beyond":       {1, 0, 100, memberSize},
		"unknown blob": {1, 9, 0, 1},
	} {
		m := memberAt(t, mStarted)
		m.step(meFrame{1, 0, 0, 100})
		if _, ok := did[actAccept](m.step(f)); ok {
			t.Errorf("%s: accepted", name)
		}
		if m.blobs[0].recv != 100 {
			t.Errorf("%s: received %d", name, m.blobs[0].recv)
		}
	}
}

// Blobs come in travelling order, those that are held left out.
func TestMemberBlobsInOrder(t *testing.T) {
	var descs []v1.Descriptor
	for _, s := range []string{"a", "b", "c"} {
		descs = append(descs, v1.Descriptor{Size: 10, Digest: digest.FromString(s)})
	}
	m := newMember(descs)
	m.step(meHeld{[]int64{0, 10, 0}})
	m.step(meMsg{&wire.Start{}})
	m.step(meMsg{&wire.Feed{Link: 1, Generation: 1}})
	m.step(meOpen{1, 1})
	for _, f := range []struct {
		meFrame
		good bool
	}{{meFrame{1, 2, 0, 10}, false}, {meFrame{1, 1, 0, 10}, false}, {meFrame{1, 0, 0, 10}, true}, {meFrame{1, 1, 0, 10}, false}, {meFrame{1, 2, 0, 10}, true}} {
		if _, ok := did[actAccept](m.step(f.meFrame)); ok != f.good {
			t.Errorf("blob %d: accepted %v", f.blob, ok)
		}
	}
}

// A stream's final mark shows that the feeder ended too early.
func TestMemberStreamEndsEarly(t *testing.T) {
	m := newMember([]v1.Descriptor{{Size: -1}})
	m.step(meHeld{[]int64{0}})
	m.step(meMsg{&wire.Start{}})
	m.step(meMsg{&wire.Feed{Link: 1, Generation: 1}})
	m.step(meOpen{1, 1})
	m.step(meFrame{1, 0, 0, 10})
	m.step(meFeedEnd{1, 1, true, CodeNone, ""})
	out := m.step(meMsg{&wire.Marks{Marks: []wire.Mark{{Offset: 20, Sum: sumOf("all"), Final: true}}}})
	if l, _ := said[*wire.Link](out); l == nil || l.State != wire.LinkDown {
		t.Errorf("says %+v", l)
	}
}

// Wrong bytes send the node back to its last good mark, in whatever order sums and
// marks come, and nothing of them is kept.
func TestMemberFallsBack(t *testing.T) {
	mark := meMsg{&wire.Marks{Marks: []wire.Mark{{Offset: 4 << 20, Sum: sumOf("mark")}}}}
	final := meMsg{&wire.Marks{Marks: []wire.Mark{{Offset: memberSize, Sum: sumOf("all"), Final: true}}}}
	good := meSum{0, 4 << 20, sumOf("mark"), false}
	for name, c := range map[string]struct {
		evs       []any
		off, good int64
	}{
		"mark then sum":  {[]any{mark, meSum{0, 4 << 20, sumOf("x"), false}}, 4 << 20, 0},
		"sum then mark":  {[]any{meSum{0, 4 << 20, sumOf("x"), false}, mark}, 4 << 20, 0},
		"final then sum": {[]any{mark, good, final, meSum{0, memberSize, sumOf("x"), true}}, memberSize, 4 << 20},
		"sum then final": {[]any{good, meSum{0, memberSize, sumOf("x"), true}, mark, final}, memberSize, 4 << 20},
	} {
		m := memberAt(t, mStarted)
		m.step(meFrame{1, 0, 0, 4 << 20})
		m.step(meFrame{1, 0, 4 << 20, 2 << 20})
		var out []action
		for _, ev := range c.evs {
			out = append(out, m.step(ev)...)
		}
		f, _ := said[*wire.Fallback](out)
		if f == nil || *f != (wire.Fallback{Link: 1, Generation: 1, Offset: c.off, Good: c.good}) {
			t.Errorf("%s: said %+v", name, f)
		}
		if _, ok := did[actReset](out); !ok {
			t.Errorf("%s: goes on", name)
		}
		if _, settled := did[actSettle](out); settled {
			t.Errorf("%s: made durable", name)
		}
		// Not before the driver is back does it say what it needs, and only to the newest feed.
		if r, ok := did[actRefuse](m.step(meFrame{1, 0, c.good, 100})); !ok || r.status == wire.HelloOK {
			t.Errorf("%s: takes frames of the feed that lied", name)
		}
		if n, _ := said[*wire.Need](m.step(meMsg{&wire.Feed{Link: 2, Generation: 2}})); n != nil {
			t.Errorf("%s: said %+v before it was back", name, n)
		}
		if n, _ := said[*wire.Need](m.step(meReset{})); n == nil || n.Link != 2 || n.Needs[0] != [2]int64{0, c.good} {
			t.Errorf("%s: back, it said %+v", name, n)
		}
		// The right bytes are judged by the same marks.
		m.step(meOpen{2, 2})
		m.step(meFrame{2, 0, c.good, memberSize - int(c.good)})
		if c.good == 0 {
			m.step(good)
		}
		m.step(final)
		if _, settled := did[actSettle](m.step(meSum{0, memberSize, sumOf("all"), true})); !settled {
			t.Errorf("%s: the right bytes are not made durable", name)
		}
	}
}

// A claim is what marks say of it.
func TestMemberClaims(t *testing.T) {
	claim := func() *member {
		m := newMember([]v1.Descriptor{{Size: memberSize, Digest: digest.NewDigestFromBytes(digest.SHA256, sumOf("all"))}})
		m.step(meHeld{[]int64{5 << 20}})
		m.step(meMsg{&wire.Start{}})
		return m
	}
	m := claim()
	if n, _ := said[*wire.Need](m.step(meMsg{&wire.Feed{Link: 1, Generation: 1}})); n == nil || n.Needs[0] != [2]int64{0, 4 << 20} {
		t.Fatalf("says it needs %+v", n)
	}
	m.step(meSum{0, 4 << 20, sumOf("x"), false})
	out := m.step(meMsg{&wire.Marks{Marks: []wire.Mark{{Offset: 4 << 20, Sum: sumOf("mark")}}}})
	if f, _ := said[*wire.Fallback](out); f == nil || f.Good != 0 {
		t.Errorf("a wrong claim: says %+v", f)
	}

	// The part of a longer stream.
	m = newMember([]v1.Descriptor{{Size: -1}})
	m.step(meHeld{[]int64{8 << 20}})
	m.step(meMsg{&wire.Start{}})
	out = m.step(meMsg{&wire.Marks{Marks: []wire.Mark{{Offset: 5 << 20, Sum: sumOf("all"), Final: true}}}})
	if f, _ := said[*wire.Fallback](out); f == nil || f.Good != 0 || m.phase != mStarted {
		t.Errorf("a claim behind the end: says %+v", f)
	}
}

// What cannot be put right by other bytes ends the node.
func TestMemberFails(t *testing.T) {
	for name, ev := range map[string]any{
		"not as offered":  meMsg{&wire.Marks{Marks: []wire.Mark{{Offset: memberSize, Sum: sumOf("x"), Final: true}}}},
		"other length":    meMsg{&wire.Marks{Marks: []wire.Mark{{Offset: 7, Sum: sumOf("all"), Final: true}}}},
		"malformed mark":  meMsg{&wire.Marks{Marks: []wire.Mark{{Blob: 5, Sum: sumOf("all")}}}},
		"unasked message": meMsg{&wire.Pong{}},
	} {
		m := memberAt(t, mStarted)
		m.step(meFrame{1, 0, 0, 4 << 20})
		m.step(meFrame{1, 0, 4 << 20, 2 << 20})
		out := m.step(ev)
		f, _ := said[*wire.Fail](out)
		if _, over := did[actRelease](out); m.phase != mFailed || f == nil || !over {
			t.Errorf("%s: phase %d, said %v", name, m.phase, f)
		}
	}
}

// What is stored may be passed on only below a good mark.
func TestMemberReadableBelowMarks(t *testing.T) {
	m := memberAt(t, mStarted)
	m.step(meFrame{1, 0, 0, 4 << 20})
	if _, ok := did[actGood](m.step(meSum{0, 4 << 20, sumOf("mark"), false})); ok {
		t.Error("readable before its mark came")
	}
	out := m.step(meMsg{&wire.Marks{Marks: []wire.Mark{{Offset: 4 << 20, Sum: sumOf("mark")}}}})
	if g, ok := did[actGood](out); !ok || g.off != 4<<20 {
		t.Errorf("after the mark: %v", out)
	}
	// All marks come again after a resume.
	if out := m.step(meMsg{&wire.Marks{Marks: []wire.Mark{{Offset: 4 << 20, Sum: sumOf("mark")}}}}); len(out) != 0 || len(m.blobs[0].marks) != 0 {
		t.Errorf("a repeated mark caused %v, %d kept", out, len(m.blobs[0].marks))
	}
}

// A server that comes back hears again what it may have missed.
func TestMemberResume(t *testing.T) {
	if v, _ := said[*wire.Verified](memberAt(t, mVerified).step(meResume{})); v == nil {
		t.Error("does not say VERIFIED again")
	}
	if v, _ := said[*wire.Committed](memberAt(t, mCommitted).step(meResume{})); v == nil {
		t.Error("does not say COMMITTED again")
	}
	m := memberAt(t, mStarted)
	m.step(meFailure{failf(CodeStore, "disk")})
	if v, _ := said[*wire.Fail](m.step(meResume{})); v == nil {
		t.Error("does not say FAIL again")
	}
}

func TestMemberFinalRecordTooEarly(t *testing.T) {
	m := memberAt(t, mStarted)
	m.step(meFrame{1, 0, 0, 100})
	l, _ := said[*wire.Link](m.step(meFeedEnd{1, 1, true, CodeNone, ""}))
	if l == nil || l.State != wire.LinkDown {
		t.Errorf("says %+v", l)
	}
}
