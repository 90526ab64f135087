//go:build !race

package coordinator

import (
	"crypto/sha256"
	"slices"

	"github.com/dolly-img/dolly-img/ring/internal/member"
	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/dolly-img/dolly-img/ring/leaf"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// In some of the explorer's worlds the blob travels in leaves, one for each frame, and nodes have some of them in advance. They
// claim them, or they compare them first.

// xNone is a leaf that a node does not have. 0 is as the source has it, and 1 differs.
const xNone = 2

// xCompare is the one of xOlds of which nodes compare what they have. In the others they claim it.
const xCompare = 3

var xOlds = [][][]byte{
	1:        {{1, 1}, {0, xNone}, {xNone, 0}},
	2:        {{xNone, 0}, {xNone, 0}, {1, xNone}},
	xCompare: {{0, 1}, {1, 0}, {0, 0}},
}

func (w *world) compares() bool { return w.may.sets == xCompare }

// holdInAdvance gives node i what it has in advance.
func (w *world) holdInAdvance(i int) {
	if w.may.sets == 0 {
		return
	}
	w.blob = v1.Descriptor{MediaType: leaf.MediaType, Size: xFrames * xFrame}
	w.sum = w.rootOf(make([]byte, xFrames))
	w.nodes[i].old = xOlds[w.may.sets][i-1]
}

// digest is that of the source.
func (w *world) digest() digest.Digest {
	if w.may.sets > 0 {
		return leaf.Digest(w.sum)
	}
	return w.blob.Digest
}

// each is the distance of marks that a member needs to know.
func (w *world) each() int64 {
	if w.may.sets > 0 {
		return xFrame
	}
	return 1
}

// sumOf is the sum of the mark behind data.
func (w *world) sumOf(data []byte) []byte {
	if w.may.sets > 0 {
		data = data[len(data)-1:]
	}
	return xSum(data)
}

// rootOf is the sum of all of data.
func (w *world) rootOf(data []byte) []byte {
	if w.may.sets == 0 {
		return xSum(data)
	}
	root := sha256.New()
	for k := range data {
		root.Write(xSum(data[k : k+1]))
	}
	return root.Sum(nil)
}

// hash is the sum that a node has of the frame that it hashed last.
func (w *world) hash(n *xNode) []byte {
	if w.compares() {
		if sum := n.m.Compared(0, int64(n.hashed-1)*xFrame); sum != nil {
			return sum
		}
	}
	return w.sumOf(n.data[:n.hashed])
}

// claims are the sets of leaves that a node claims in its ANSWER.
func (w *world) claims(n *xNode) (sets []*leaf.Set, leaves []wire.Leaves) {
	if w.may.sets == 0 || w.compares() {
		return nil, nil
	}
	set := leaf.SetOf(w.blob.Size, xFrame, func(off int64) bool { return n.old[off/xFrame] != xNone })
	return []*leaf.Set{set}, []wire.Leaves{{Blob: 0, Set: set.Bits()}}
}

// fill puts what node i holds where it stands.
func (w *world) fill(i int) {
	n := w.nodes[i]
	if w.may.sets == 0 || n.m == nil || slices.Contains(n.jobs, "reset") {
		return
	}
	for to := int(n.m.Position(0).Accepted / xFrame); len(n.data) < to; {
		k := len(n.data)
		if n.old[k] == xNone {
			w.fail("n%d counts leaf %d as its own, which it does not have", i, k)
			return
		}
		n.data = append(slices.Clone(n.data), n.old[k])
		n.filled = append(append(slices.Clone(n.filled), make([]bool, k-len(n.filled))...), true)
	}
}

// sendable reports whether the feeder of a link can send what comes next on it. Of what it held in advance it sends only what
// is good.
func (w *world) sendable(l *xLink) bool {
	if l.pos >= w.has(l.feeder) {
		return false
	}
	if l.feeder == 0 || w.may.sets == 0 {
		return true
	}
	n := w.nodes[l.feeder]
	return l.pos >= len(n.filled) || !n.filled[l.pos] || n.m.Position(0).Good >= int64(l.pos+1)*xFrame
}

// markOn reads a byte of the source for its mark, and sends that to those who compare.
func (w *world) markOn() {
	w.again++
	for i := 1; i < len(w.nodes); i++ {
		if n := &w.c.nodes[i]; n.contact.alive && n.phase == phReady && n.compared.waits() {
			w.send(i, w.marks(w.again-1))
		}
	}
	if w.again == xFrames {
		w.chain(EvCompareRead{})
	}
}

// compareOwn hashes the next leaf of what node i has, or finds that there is none.
func (w *world) compareOwn(i int) {
	n := w.own(i)
	k := n.own
	if n.own++; k == len(n.old) {
		w.node(i, member.EvHashed{})
		return
	}
	w.node(i, member.EvOwn{Blob: 0, Sum: sha256.Sum256(n.old[k : k+1])})
}

// checkCommon checks that the server leaves out only what nobody lacks.
func (w *world) checkCommon(a ActSource) {
	if w.may.sets == 0 || a.Common == nil {
		return
	}
	for _, i := range w.c.order {
		for k := range int64(xFrames) {
			if n := w.nodes[i]; n.m != nil && a.Common[0].Has(k*xFrame) && !n.m.Position(0).Set.Has(k*xFrame) {
				w.fail("the server leaves out leaf %d, which n%d lacks", k, i)
			}
		}
	}
}

// mayFall is how often a node may go back where nobody changes bytes: once for each leaf that it holds and that differs, and again
// when it has come back.
func (w *world) mayFall(n *xNode) (falls int) {
	if w.may.lies > 0 {
		return anyOrder
	}
	for _, v := range n.old {
		if v == 1 && !w.compares() {
			falls += 1 + w.may.returns
		}
	}
	return falls
}

// checkSpared checks that a link does not bring what its receiver holds.
func (w *world) checkSpared(l *xLink) {
	m := w.nodes[l.node].m
	if off := int64(l.pos) * xFrame; w.may.sets > 0 && l.gen == m.Generation() && m.Position(0).Set.Has(off) {
		w.fail("n%d is sent leaf %d, which it holds", l.node, l.pos)
	}
}
