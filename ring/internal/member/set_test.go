package member

import (
	"slices"
	"testing"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/dolly-img/dolly-img/ring/leaf"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

const setLeaf = 4

// setMember is a machine of one blob in six leaves, of which those of has are there, and which is fed.
func setMember(t *testing.T, has ...int64) *Machine {
	t.Helper()
	const size = 6*setLeaf - 1 // the last one is shorter
	m := New([]v1.Descriptor{{MediaType: leaf.MediaType, Size: size}}, setLeaf)
	m.Step(EvHeld{Held: []int64{0}, Sets: []*leaf.Set{leaf.SetOf(size, setLeaf, func(off int64) bool { return slices.Contains(has, off/setLeaf) })}})
	m.Step(EvMsg{&wire.Start{}})
	return m
}

// feed has a new link of the generation feed the machine, and returns what it needs.
func feed(t *testing.T, m *Machine, gen uint32) *wire.Need {
	t.Helper()
	need, _ := said[*wire.Need](m.Step(EvMsg{&wire.Feed{Link: gen, Generation: gen}}))
	if need == nil {
		t.Fatal("it does not say what it needs")
	}
	m.Step(EvOpen{gen, gen})
	return need
}

func accepts(m *Machine, gen uint32, off int64, length int) bool {
	_, ok := did[ActAccept](m.Step(EvFrame{gen, 0, off, length, false}))
	return ok
}

// A link brings the leaves that are not there, and no others.
func TestSetWalk(t *testing.T) {
	m := setMember(t, 0, 2, 3, 5)
	need := feed(t, m, 1)
	if !slices.Equal(need.Needs, [][2]int64{{0, setLeaf}}) || len(need.Leaves) != 1 || need.Leaves[0].Set[0] != 0b101101 {
		t.Errorf("needs %v %v", need.Needs, need.Leaves)
	}
	for _, f := range []struct {
		off  int64
		n    int
		want bool
	}{
		{0, 4, false}, {8, 4, false}, {4, 2, true}, {8, 4, false}, {6, 2, true}, {8, 4, false}, {12, 4, false}, {16, 4, true}, {20, 3, false},
	} {
		if got := accepts(m, 1, f.off, f.n); got != f.want {
			t.Errorf("frame at %d: %v", f.off, got)
		}
	}
	if !m.AcceptedAll() || m.Received() != 8 {
		t.Errorf("has accepted all: %v, received %d", m.AcceptedAll(), m.Received())
	}
	out := m.Step(EvFeedEnd{Link: 1, Generation: 1, Fin: true})
	if l, _ := said[*wire.Link](out); l == nil || l.State != wire.LinkDone {
		t.Errorf("says %v at the final record", l)
	}
	if need := feed(t, m, 2); len(need.Needs) != 0 || len(need.Leaves) != 0 {
		t.Errorf("needs %v %v in the end", need.Needs, need.Leaves)
	}
}

// A leaf that was there and differs costs only itself. From the third time on nothing is believed that is not good.
func TestSetWrong(t *testing.T) {
	m := setMember(t, 0, 1, 2, 3, 4)
	sums := func(to int64, wrong ...int64) (out []Action) {
		for off := m.Position(0).Good + setLeaf; off <= to; off += setLeaf {
			sum := sumOf("right")
			if slices.Contains(wrong, off/setLeaf-1) {
				sum = sumOf("wrong")
			}
			out = append(out, m.Step(EvSum{0, off, sum, false})...)
			if m.Resetting() {
				return out
			}
		}
		return out
	}
	for k := range int64(5) {
		m.Step(EvMsg{&wire.Marks{Marks: []wire.Mark{{Offset: (k + 1) * setLeaf, Sum: sumOf("right")}}}})
	}
	if need := feed(t, m, 1); !slices.Equal(need.Needs, [][2]int64{{0, 20}}) || len(need.Leaves) != 0 {
		t.Errorf("needs %v %v", need.Needs, need.Leaves)
	}
	if !accepts(m, 1, 20, 3) {
		t.Fatal("the last leaf was refused")
	}
	for i, c := range []struct {
		wrong int64
		needs int64
		set   []byte // without what means nothing
	}{
		{1, 4, []byte{0b11100}}, {2, 8, []byte{0b11000}}, {3, 12, nil},
	} {
		out := sums(20, c.wrong)
		fell, _ := said[*wire.Fallback](out)
		if fell == nil || fell.Offset != (c.wrong+1)*setLeaf || fell.Good != c.wrong*setLeaf {
			t.Fatalf("leaf %d: fell back with %v", c.wrong, fell)
		}
		m.Step(EvReset{})
		need := feed(t, m, uint32(i+2))
		if !slices.Equal(need.Needs, [][2]int64{{0, c.needs}}) || (len(need.Leaves) > 0) != (c.set != nil) || c.set != nil && need.Leaves[0].Set[0]>>c.wrong<<c.wrong != c.set[0] {
			t.Errorf("leaf %d: needs %v %v", c.wrong, need.Needs, need.Leaves)
		}
		if !accepts(m, uint32(i+2), c.needs, 4) {
			t.Errorf("leaf %d was refused", c.wrong)
		}
		if next := m.Position(0).Accepted; i < 2 && next != 20 || i == 2 && next != 16 {
			t.Errorf("after leaf %d it goes on at %d", c.wrong, next)
		}
	}
}
