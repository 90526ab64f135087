package ring

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/dolly-img/dolly-img/ring/internal/simcheck"
	"github.com/dolly-img/dolly-img/ring/leaf"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Simulated sinks that hold leaves in advance, some of which are not as the source has them.

// inLeaves says whether blobs without a digest travel in leaves: nodes of an older version, of which there are some in one
// scenario of three, refuse them.
func (s *simCase) inLeaves() bool { return s.Seed%3 != 0 && s.Seed%2 == 0 }

// holdAhead makes nodes hold leaves of one blob in advance.
func (s *simCase) holdAhead(r *rand.Rand) {
	i := r.IntN(len(s.Blobs))
	b := &s.Blobs[i]
	b.Digest, b.Stream, b.Size = false, false, max(b.Size, r.Int64N(12*simMark))
	s.Held = slices.DeleteFunc(s.Held, func(h [2]int) bool { return h[1] == i })
	for node := 1; node <= s.Nodes; node++ {
		if r.IntN(3) > 0 {
			s.Ahead = append(s.Ahead, [4]int{node, i, r.IntN(1 << 16), []int{0, 0, 0, 1, 2, 9}[r.IntN(6)]})
		}
	}
}

// update makes the scenario one of an update: there is one blob, in leaves, and what nodes hold in advance is what differs
// least from it in what they have in its place.
func (s *simCase) update(r *rand.Rand) {
	s.Held = slices.DeleteFunc(s.Held, func(h [2]int) bool { return h[1] > 0 })
	s.Parts = slices.DeleteFunc(s.Parts, func(p [4]int) bool { return p[1] > 0 })
	s.Blobs, s.Ahead, s.Update = s.Blobs[:1], nil, true
	s.holdAhead(r)
}

// Compare has the part hold all leaves in advance, of which those that the scenario does not name differ.
func (s *simSink) Compare(_ context.Context, d v1.Descriptor) (int64, error) {
	i := blobOf(d)
	s.sim.happens(s.node.name, "compare", i, 0)
	s.mu.Lock()
	defer s.mu.Unlock()
	p, right := &s.parts[i], s.sim.ahead(s.node, i)
	if len(right) == 0 || s.dead {
		return 0, nil
	}
	p.cut(0, s.sim.blobs[i].data)
	p.durable, p.ahead = false, map[int64]bool{}
	for off := int64(0); off < d.Size; off += simMark {
		wrong, ok := right[off]
		p.ahead[off] = wrong || !ok && off+simMark <= d.Size
	}
	return d.Size, nil
}

// Same: in some simulations what was compared is hashed once more.
func (s *simSink) Same(v1.Descriptor) bool { return s.sim.sc.Seed%5 > 1 }

// ahead returns which leaves of blob i a node holds as the scenario has it; true are those that differ.
func (s *sim) ahead(n *simNode, i int) map[int64]bool {
	d := s.blobs[i].desc
	all := map[int64]bool{}
	for _, k := range s.sc.Ahead {
		if k[0] != n.index || k[1] != i || !leaf.In(d) {
			continue
		}
		r, wrong := rand.New(rand.NewPCG(uint64(k[2]), 3)), k[3]
		share := 1 + r.IntN(10)
		for off := int64(0); off+simMark <= d.Size; off += simMark {
			if r.IntN(10) < share {
				all[off] = wrong > 0 && r.IntN(3) == 0
				if all[off] {
					wrong--
				}
			}
		}
	}
	return all
}

func (s *simSink) Holds(d v1.Descriptor, off int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.parts[blobOf(d)].ahead[off]
	return ok && !s.sim.sc.Update
}

// aheadAt is what a part holds in advance at off, to the end of a leaf; nil: nothing. mu is held.
func (s *simSink) aheadAt(i int, off int64) []byte {
	front := off - off%simMark
	wrong, ok := s.parts[i].ahead[front]
	if !ok {
		return nil
	}
	b := s.sim.blobs[i].data[front:min(front+simMark, int64(len(s.sim.blobs[i].data)))]
	if wrong {
		b = bytes.Clone(b)
		b[0] ^= 1
	}
	return b[off-front:]
}

// skip goes on to byte to of part i, over what it holds in advance. mu is held.
func (s *simSink) skip(i int, to int64) error {
	p, src := &s.parts[i], s.sim.blobs[i].data
	from, bad := p.n, false
	for p.n < to {
		b := s.aheadAt(i, p.n)
		if b = b[:min(int64(len(b)), to-p.n)]; len(b) == 0 {
			return fmt.Errorf("left out byte %d of blob %d, which it does not hold", p.n, i)
		}
		same := bytes.Equal(b, src[p.n:p.n+int64(len(b))])
		if bad = bad || !same; !same && p.own == nil {
			p.own = append(make([]byte, 0, len(src)), src[:p.n]...)
		}
		if p.own != nil {
			p.own = append(p.own, b...)
		}
		p.n += int64(len(b))
	}
	if p.n == from {
		return nil
	}
	return s.say(simcheck.Event{Kind: simcheck.Skip, Blob: i, Off: from, N: p.n - from, Bad: bad})
}
