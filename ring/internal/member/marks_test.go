package member

import (
	"slices"
	"testing"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/dolly-img/dolly-img/ring/leaf"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// A node says between two reports how far it is once as much is good as it was told to say, and what was reported counts.
func TestMemberSaysGood(t *testing.T) {
	m := New([]v1.Descriptor{{Size: 1 << 40}}, wire.MarkEvery)
	m.Ahead(16)
	m.Step(EvHeld{Held: []int64{0}})
	m.Step(EvMsg{&wire.Start{}})
	var said []int64
	for k := int64(1); k <= 14; k++ {
		sum := sumOf(string(rune(k)))
		m.Step(EvSum{Offset: k * wire.MarkEvery, Sum: sum})
		for _, a := range m.Step(EvMsg{&wire.Marks{Marks: []wire.Mark{{Offset: k * wire.MarkEvery, Sum: sum}}}}) {
			if s, ok := a.(ActSay); ok {
				said = append(said, s.Msg.(*wire.Good).Good/wire.MarkEvery)
			}
		}
		if k == 6 {
			m.Report()
		}
	}
	if !slices.Equal(said, []int64{4, 10, 14}) {
		t.Errorf("said %d", said)
	}
}

// Of the sums of a node that gets no marks only so many wait, and they are compared once marks come.
func TestMemberSumsAreBounded(t *testing.T) {
	m := New([]v1.Descriptor{{Size: 1 << 62}, {Size: -1}}, wire.MarkEvery)
	m.Step(EvHeld{Held: []int64{0, 0}})
	m.Step(EvMsg{&wire.Start{}})
	for b := range 2 {
		for k := range int64(maxSums) {
			m.Step(EvSum{Blob: b, Offset: (k + 1) * wire.MarkEvery, Sum: sumOf("sum")})
		}
	}
	if all := len(m.blobs[0].sums) + len(m.blobs[1].sums); all != maxSums || m.sums != all {
		t.Errorf("%d sums are kept, %d are counted, want %d", all, m.sums, maxSums)
	}
	m.Step(EvMsg{&wire.Marks{Marks: []wire.Mark{{Offset: 2 * wire.MarkEvery, Sum: sumOf("sum")}}}})
	if m.sums != maxSums-2 || m.blobs[0].good != 2*wire.MarkEvery {
		t.Errorf("%d sums wait after a comparison, %d bytes are good", m.sums, m.blobs[0].good)
	}
	m.Step(EvMsg{&wire.Marks{Marks: []wire.Mark{{Offset: 3 * wire.MarkEvery, Sum: sumOf("other")}}}})
	if m.sums != 0 {
		t.Errorf("%d sums wait after a fallback", m.sums)
	}
}

// No mark comes behind the final one, so that nothing has to wait for marks then: those that were left out never come.
func TestMemberAwaitsNoMarks(t *testing.T) {
	d := v1.Descriptor{MediaType: leaf.MediaType, Size: 9 * wire.MarkEvery}
	m := New([]v1.Descriptor{d, d}, wire.MarkEvery)
	m.Step(EvHeld{Held: []int64{0, 0}})
	m.Step(EvMsg{&wire.Start{}})
	for k := int64(1); k <= 5; k++ {
		m.Step(EvSum{Offset: k * wire.MarkEvery, Sum: sumOf("sum")})
	}
	if m.Unjudged(0) != 5 || m.Unjudged(1) != 5 || m.Unjudged(2) != 0 || m.Unjudged(1<<32-1) != 0 {
		t.Errorf("%d sums wait for marks, want 5", m.Unjudged(0))
	}
	m.Step(EvMsg{&wire.Marks{Marks: []wire.Mark{{Offset: 9 * wire.MarkEvery, Sum: sumOf("root"), Final: true}}}})
	if n := m.Unjudged(0); n != 0 {
		t.Errorf("%d sums wait for marks behind the final one", n)
	}
}
