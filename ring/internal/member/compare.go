package member

import (
	"crypto/sha256"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/dolly-img/dolly-img/ring/leaf"
)

// Before START a node may be asked which leaves of what it has are as the source has them (PROTOCOL.md section 7, "Comparing").

// comparison is how far that is.
type comparison struct {
	// asked says that COMPARE came, hashed that there is nothing more to hash, and said that COMPARED was said.
	asked, hashed, said bool
}

// startComparing takes a COMPARE.
func (m *Machine) startComparing() {
	switch {
	case m.phase != Offered:
		m.fail(wire.Errorf(wire.CodeProtocol, "told to compare after the start"))
	case m.comparison.said: // it was lost
		m.say(&wire.Compared{Leaves: m.allLeaves()})
	case !m.comparison.asked:
		m.comparison.asked = true
		m.do(ActCompare{})
	}
}

// Comparing reports whether the node is asked to compare what it has, and has not said what is right.
func (m *Machine) Comparing() bool {
	return m.comparison.asked && !m.comparison.said && m.phase == Offered
}

// own takes the sum of the next leaf of what the node has in place of a blob.
func (m *Machine) own(ev EvOwn) {
	if b := &m.blobs[ev.Blob]; m.Comparing() {
		b.own = append(b.own, ev.Sum)
	}
}

// comparedTo returns how many leading bytes of a blob were hashed and have their marks. The server does not send the marks of
// what is reported: so a node that hashes faster than the server does not tell of more.
func (m *Machine) comparedTo(b *blob) int64 {
	to := min(int64(len(b.own))*m.markEvery, b.size)
	switch {
	case b.final != "" || m.marks >= maxMarks:
		return to
	case len(b.marks) == 0:
		return 0
	}
	return min(to, b.marks[len(b.marks)-1].off)
}

// maybeCompared ends comparing once everything was hashed and all marks are there.
func (m *Machine) maybeCompared() {
	if !m.Comparing() || !m.comparison.hashed {
		return
	}
	for i := range m.blobs {
		if b := &m.blobs[i]; len(b.own) > 0 && b.final == "" {
			return
		}
	}
	m.sayCompared()
}

// sayCompared says which leaves are right, as far as that is known by now.
func (m *Machine) sayCompared() {
	m.comparison.said = true
	for i := range m.blobs {
		b := &m.blobs[i]
		if len(b.own) == 0 || b.held {
			continue
		}
		b.claim, b.set = 0, m.rightLeaves(b)
		b.walk(0)
	}
	m.say(&wire.Compared{Leaves: m.allLeaves()})
	m.do(ActCompared{})
}

// rightLeaves returns those of the leaves that were hashed whose sums are equal to their marks.
func (m *Machine) rightLeaves(b *blob) *leaf.Set {
	if int64(len(b.own)) == (b.size+m.markEvery-1)/m.markEvery {
		root := sha256.New()
		for _, sum := range b.own {
			root.Write(sum[:])
		}
		if b.final != "" && leaf.Digest(root.Sum(nil)) == b.final {
			return leaf.SetOf(b.size, m.markEvery, func(int64) bool { return true })
		}
	}
	marks := b.marks
	return leaf.SetOf(b.size, m.markEvery, func(off int64) bool {
		for len(marks) > 0 && marks[0].off <= off {
			marks = marks[1:]
		}
		k := off / m.markEvery
		return k < int64(len(b.own)) && len(marks) > 0 && marks[0].off == off+m.markEvery && marks[0].sum == b.own[k]
	})
}

// allLeaves returns the sets of the blobs that were compared, also empty ones.
func (m *Machine) allLeaves() (all []wire.Leaves) {
	for i := range m.blobs {
		if b := &m.blobs[i]; len(b.own) > 0 && b.set != nil {
			all = append(all, wire.Leaves{Blob: i, Set: b.set.Bits()})
		}
	}
	return all
}

// Compared returns the sum of the leaf of blob i at off, if the node hashed that leaf while it compared and holds it.
func (m *Machine) Compared(i int, off int64) (sum []byte) {
	b := &m.blobs[i]
	if k := off / m.markEvery; b.set.Has(off) && k < int64(len(b.own)) {
		return b.own[k][:]
	}
	return nil
}
