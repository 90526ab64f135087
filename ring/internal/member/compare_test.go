package member

import (
	"crypto/sha256"
	"slices"
	"testing"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/dolly-img/dolly-img/ring/leaf"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// A node says which of its leaves have the sums of their marks, however much of them it has hashed when it has to say so,
// and needs the others.
func TestCompare(t *testing.T) {
	const leaves, size = 6, 6*setLeaf - 1 // the last leaf has no mark
	right := func(k int) [sha256.Size]byte { return sha256.Sum256([]byte{byte(k)}) }
	all := sha256.New()
	var marks []wire.Mark
	for k := range leaves {
		sum := right(k)
		all.Write(sum[:])
		if k < leaves-1 {
			marks = append(marks, wire.Mark{Offset: int64(k+1) * setLeaf, Sum: sum[:]})
		}
	}
	marks = append(marks, wire.Mark{Offset: size, Sum: all.Sum(nil), Final: true})
	for name, c := range map[string]struct {
		own   int   // so many of its leaves are hashed
		wrong []int // these differ
		marks int   // so many marks come before START
		want  byte
		say   bool // before START
	}{
		"all":               {6, nil, 6, 0b111111, true},
		"one differs":       {6, []int{2}, 6, 0b111011, true},
		"the last differs":  {6, []int{5}, 6, 0b011111, true},
		"all differ":        {6, []int{0, 1, 2, 3, 4, 5}, 6, 0, true},
		"shorter":           {3, nil, 6, 0b000111, true},
		"nothing":           {0, nil, 6, 0, true},
		"slow":              {4, []int{1}, 6, 0b001101, false},
		"the server failed": {6, nil, 3, 0b000111, false},
	} {
		t.Run(name, func(t *testing.T) {
			m := New([]v1.Descriptor{{MediaType: leaf.MediaType, Size: size}}, setLeaf)
			m.Step(EvHeld{Held: []int64{0}})
			if _, ok := did[ActCompare](m.Step(EvMsg{&wire.Compare{}})); !ok {
				t.Fatal("it does not compare")
			}
			var out []Action
			for k := range c.own {
				sum := right(k)
				if slices.Contains(c.wrong, k) {
					sum[0] ^= 1
				}
				out = append(out, m.Step(EvOwn{0, sum})...)
				out = append(out, m.Step(EvMsg{&wire.Marks{Marks: marks[min(k, c.marks):min(k+1, c.marks)]}})...)
			}
			if good := m.Report().Good; good != min(int64(min(c.own, c.marks))*setLeaf, size) { // what it reports is not sent to it any more
				t.Errorf("reports %d", good)
			}
			if name != "slow" {
				out = append(out, m.Step(EvHashed{})...)
			}
			out = append(out, m.Step(EvMsg{&wire.Marks{Marks: marks[:c.marks]}})...)
			if _, ok := said[*wire.Compared](out); ok != c.say {
				t.Errorf("has said so before the start: %v", ok)
			}
			out = append(out, m.Step(EvMsg{&wire.Start{}})...)
			say, ok := said[*wire.Compared](out)
			if !ok || (len(say.Leaves) > 0) != (c.own > 0) || c.own > 0 && say.Leaves[0].Set[0] != c.want {
				t.Fatalf("says %v", say)
			}
			if bytes := min(int64(min(c.own, c.marks))*setLeaf, size); say.Bytes != bytes {
				t.Errorf("says that it has compared %d bytes, not %d", say.Bytes, bytes)
			}
			need := feed(t, m, 1)
			first := int64(0)
			for c.want>>first&1 == 1 {
				first++
			}
			if c.want == 0b111111 && len(need.Needs) > 0 || c.want != 0b111111 && need.Needs[0][1] != first*setLeaf {
				t.Errorf("needs %v", need.Needs)
			}
			for k := range int64(leaves) {
				if held := c.want>>k&1 == 1; (m.Compared(0, k*setLeaf) != nil) != held {
					t.Errorf("leaf %d is known: %v", k, !held)
				}
			}
		})
	}
}

// A COMPARED that was lost is said again, and COMPARE after the start is a violation.
func TestCompareAgain(t *testing.T) {
	m := New([]v1.Descriptor{{MediaType: leaf.MediaType, Size: setLeaf}}, setLeaf)
	m.Step(EvHeld{Held: []int64{0}})
	m.Step(EvMsg{&wire.Compare{}})
	if out := m.Step(EvMsg{&wire.Compare{}}); len(out) > 0 {
		t.Errorf("asked again it does %v", out)
	}
	m.Step(EvHashed{})
	if _, ok := said[*wire.Compared](m.Step(EvMsg{&wire.Compare{}})); !ok {
		t.Error("it does not say again that it has compared")
	}
	if _, ok := said[*wire.Compared](m.Step(EvResume{})); !ok {
		t.Error("it does not say again that it has compared when its connection broke: START may come next, and no COMPARE")
	}
	m.Step(EvMsg{&wire.Start{}})
	if _, ok := said[*wire.Compared](m.Step(EvResume{})); !ok {
		t.Error("it does not say again behind the start that it has compared: what it reports would not count")
	}
	if f, _ := said[*wire.Fail](m.Step(EvMsg{&wire.Compare{}})); f == nil || f.Code != wire.CodeProtocol {
		t.Errorf("says %v", f)
	}
}

// While a node compares, it says how far it is as its marks are used up, and keeps no mark that it has compared. Behind START the
// marks come again.
func TestComparePages(t *testing.T) {
	const leaves, page = 4000, 100
	right := func(k int) []byte { sum := sha256.Sum256([]byte{byte(k), byte(k >> 8)}); return sum[:] }
	root := sha256.New()
	for k := range leaves {
		root.Write(right(k))
	}
	m := New([]v1.Descriptor{{MediaType: leaf.MediaType, Size: leaves * setLeaf}}, setLeaf)
	m.Ahead(4 * page)
	m.Step(EvHeld{Held: []int64{0}})
	m.Step(EvMsg{&wire.Compare{}})
	sent, most := 0, 0
	send := func(good int64) (out []Action) { // what a server sends to a node which has said so
		for sent < leaves && sent < int(good/setLeaf)+2*page {
			var p wire.Marks
			for range min(page, leaves-sent) {
				sent++
				p.Marks = append(p.Marks, wire.Mark{Offset: int64(sent) * setLeaf, Sum: right(sent - 1)})
			}
			if sent == leaves {
				p.Marks = append(p.Marks, wire.Mark{Offset: leaves * setLeaf, Sum: root.Sum(nil), Final: true})
			}
			out = append(out, m.Step(EvMsg{&p})...)
			most = max(most, m.marks)
		}
		return out
	}
	var good int64
	send(0)
	for k := range leaves {
		sum := [sha256.Size]byte(right(k))
		if k == 7 {
			sum[0] ^= 1
		}
		if g, ok := said[*wire.Good](m.Step(EvOwn{0, sum})); ok {
			good = g.Good
			send(good)
		}
	}
	if good != leaves*setLeaf || most > 2*page+1 {
		t.Errorf("said that %d of %d leaves were compared, and kept %d marks", good/setLeaf, leaves, most)
	}
	c, ok := said[*wire.Compared](m.Step(EvHashed{}))
	if !ok || len(c.Leaves) != 1 || c.Leaves[0].Set[0] != 0x7f || m.marks != 0 {
		t.Fatalf("says %v, keeps %d marks", c, m.marks)
	}
	m.Step(EvMsg{&wire.Start{}})
	sent = 0
	send(leaves * setLeaf)
	for k := range leaves {
		m.Step(EvSum{Blob: 0, Offset: int64(k+1) * setLeaf, Sum: right(k)})
	}
	if p := m.Position(0); p.Good != leaves*setLeaf {
		t.Errorf("%d bytes are good", p.Good)
	}
}
