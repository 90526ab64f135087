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
	// told is how far the node last said to be, and bytes is how much of what it has was compared when it said COMPARED.
	told, bytes int64
}

// compared is how far comparing is in one blob. own and right are kept behind it.
type compared struct {
	// own has the sums of the first leaves of what is there in place of the blob, and of those that were judged their marks.
	own [][sha256.Size]byte
	// judged is how many leaves, from the front, were compared with their marks, or are not there to be compared. right says
	// which of them are equal, a bit each.
	judged int64
	right  []byte
}

// startComparing takes a COMPARE.
func (m *Machine) startComparing() {
	switch {
	case m.phase != Offered:
		m.fail(wire.Errorf(wire.CodeProtocol, "told to compare after the start"))
	case m.comparison.said: // it was lost
		m.sayRight()
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
		b.compared.own = append(b.compared.own, ev.Sum)
		m.judgeOwn(ev.Blob)
	}
}

// judgeOwn compares the leaves that have their marks by now, which are needed no more then.
func (m *Machine) judgeOwn(i int) {
	b := &m.blobs[i]
	c := &b.compared
	if !b.leaves || !m.Comparing() {
		return
	}
	for len(b.marks) > 0 && (c.judged < int64(len(c.own)) || m.comparison.hashed) {
		k := b.marks[0]
		m.dropMark(b)
		if k.off != (c.judged+1)*m.markEvery {
			continue // it came before, or is behind one that was left out
		}
		if c.judged < int64(len(c.own)) {
			if c.own[c.judged] == k.sum {
				c.add(c.judged)
			}
			c.own[c.judged] = k.sum
		}
		c.judged++
	}
	if to := m.comparedTo(b); to-m.comparison.told >= m.goodEvery {
		m.comparison.told = to
		m.say(&wire.Good{Blob: i, Good: to})
	}
}

// add notes that leaf k is right.
func (c *compared) add(k int64) {
	for int64(len(c.right)) <= k/8 {
		c.right = append(c.right, 0)
	}
	c.right[k/8] |= 1 << (k % 8)
}

func (c *compared) isRight(k int64) bool {
	return k/8 < int64(len(c.right)) && c.right[k/8]>>(k%8)&1 == 1
}

// comparedTo returns how many leading bytes of a blob were compared. It is not more than the node has marks for, because the server does
// not send those of what is reported.
func (m *Machine) comparedTo(b *blob) int64 {
	if to := b.compared.judged * m.markEvery; b.final == "" || to+m.markEvery <= b.size {
		return min(to, b.size)
	}
	return min(int64(len(b.compared.own))*m.markEvery, b.size) // the last leaf has no mark
}

// maybeCompared ends comparing once everything was hashed and all marks are there.
func (m *Machine) maybeCompared() {
	if !m.Comparing() || !m.comparison.hashed {
		return
	}
	for i := range m.blobs {
		m.judgeOwn(i)
	}
	for i := range m.blobs {
		if b := &m.blobs[i]; len(b.compared.own) > 0 && b.final == "" {
			return
		}
	}
	m.sayCompared()
}

// sayCompared says which leaves are right, as far as that is known by now. The marks come again behind START.
func (m *Machine) sayCompared() {
	m.comparison.said = true
	for i := range m.blobs {
		b := &m.blobs[i]
		if len(b.compared.own) == 0 || b.held {
			continue
		}
		m.comparison.bytes += min(m.comparedTo(b), int64(len(b.compared.own))*m.markEvery)
		m.judgeLast(b)
		b.claim, b.set = 0, leaf.SetOf(b.size, m.markEvery, func(off int64) bool { return b.compared.isRight(off / m.markEvery) })
		b.walk(0)
		m.marks -= len(b.marks)
		b.marks, b.final = nil, ""
	}
	m.sayRight()
	m.do(ActCompared{})
}

// sayRight says which of the leaves that were compared are right.
func (m *Machine) sayRight() {
	m.say(&wire.Compared{Leaves: m.allLeaves(), Bytes: m.comparison.bytes})
}

// judgeLast compares a last leaf that is not whole: it is right if its sum, behind the marks of all others, gives the root.
func (m *Machine) judgeLast(b *blob) {
	c := &b.compared
	if whole := b.size / m.markEvery; b.final == "" || b.size%m.markEvery == 0 || c.judged != whole || int64(len(c.own)) != whole+1 {
		return
	}
	root := sha256.New()
	for _, sum := range c.own {
		root.Write(sum[:])
	}
	if leaf.Digest(root.Sum(nil)) == b.final {
		c.add(c.judged)
	}
}

// allLeaves returns the sets of the blobs that were compared, also empty ones.
func (m *Machine) allLeaves() (all []wire.Leaves) {
	for i := range m.blobs {
		if b := &m.blobs[i]; len(b.compared.own) > 0 && b.set != nil {
			all = append(all, wire.Leaves{Blob: i, Set: b.set.Bits()})
		}
	}
	return all
}

// Compared returns the sum of the leaf of blob i at off, if the node hashed that leaf while it compared and holds it.
func (m *Machine) Compared(i int, off int64) (sum []byte) {
	b := &m.blobs[i]
	if k := off / m.markEvery; b.set.Has(off) && k < int64(len(b.compared.own)) {
		return b.compared.own[k][:]
	}
	return nil
}
