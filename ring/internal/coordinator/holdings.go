package coordinator

import (
	"slices"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/dolly-img/dolly-img/ring/leaf"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// holdings is what a node holds before it receives, as its ANSWER says.
//
// held and claims are nil until the node has answered; from then on each has an entry for every blob. A blob
// has a claim only where it is not held, and claims only shrink, when a mark shows that they were wrong.
type holdings struct {
	// held is for each blob its size if the node vouches for all of it, else -1.
	held []int64
	// claims are for each blob the leading bytes that the node claims to have, in whole marks.
	claims []int64
	// sets are for each blob the leaves that the node claims to have, or nil. Those before its claim count there.
	sets []*leaf.Set
	// absent is how many bytes the blobs have that are not held, claimed is how many of these are claimed.
	absent, claimed int64
	// lacks says that some blob is not held: the node takes part in the chain. begins is the first of these blobs.
	lacks  bool
	begins int
	// replays says that the node can read back what it stored.
	replays bool
	// change says that the node has something to switch even where it holds everything.
	change bool
	// known says that it has answered an offer. first is how many bytes it said to hold then.
	known bool
	first int64
	// lost is how many bytes it received before it was lost.
	lost int64
}

// take reads an ANSWER of a node that has received so many bytes before; marks are markEvery bytes apart, and sizes
// are those of the blobs as far as they are known, sets has the leaves that it claims. It returns how many bytes the node
// holds, and how many it lacks.
func (h *holdings) take(blobs []v1.Descriptor, sizes []int64, ev EvAnswer, sets []*leaf.Set, received, markEvery int64) (holds, missing int64) {
	h.sets = sets
	h.replays, h.change, h.lacks = ev.Replay, ev.Change, false
	h.held, h.claims = make([]int64, len(blobs)), make([]int64, len(blobs))
	h.absent, h.claimed = 0, 0
	for b, d := range blobs {
		// Only a blob held to its last byte counts; a part is a claim that marks
		// will judge. Of an empty one nobody can tell: it is made again.
		if wire.Vouched(d, ev.Held[b]) {
			h.held[b] = d.Size
			holds += d.Size
			continue
		}
		h.held[b] = -1
		if !h.lacks {
			h.lacks, h.begins = true, b
		}
		h.claims[b] = wire.Claimed(d, ev.Held[b], markEvery)
		claimed := h.claimedOf(b)
		h.absent += sizes[b]
		h.claimed += claimed
		holds += claimed
	}
	missing = h.missing(blobs)
	if !h.known {
		h.known, h.first = true, holds
	}
	h.lost = max(h.lost+received, holds-h.first) // its last report may have been older than what it kept
	return holds, missing
}

// compare takes the leaves that the node has found right, and returns how many bytes it holds.
func (h *holdings) compare(sets []*leaf.Set) (holds int64) {
	h.sets, h.claimed = sets, 0
	for b, held := range h.held {
		if held >= 0 {
			holds += held
			continue
		}
		if sets != nil && sets[b] != nil {
			h.claims[b] = 0 // it compares something else than what it claimed
		}
		h.claimed += h.claimedOf(b)
	}
	holds += h.claimed
	h.first = max(h.first, holds)
	return holds
}

// missing is how many bytes the node needs room for.
func (h *holdings) missing(blobs []v1.Descriptor) (n int64) {
	for b, d := range blobs {
		if h.held[b] < 0 {
			n += min(max(d.Size-h.claimedOf(b), 0), max(leaf.Data(d), 0))
		}
	}
	return n
}

// claimedOf is how many bytes of a blob the node claims.
func (h *holdings) claimedOf(b int) int64 {
	if h.sets == nil {
		return h.claims[b]
	}
	return h.claims[b] + h.sets[b].Bytes(h.claims[b])
}

// lackedBefore is how many bytes the node had to receive of what is before byte off of blob, but for leaves that it claimed
// behind others. sizes are those of the blobs.
func (h *holdings) lackedBefore(sizes []int64, blob int, off int64) (n int64) {
	for b, held := range h.held {
		switch {
		case b > blob || held >= 0:
		case b == blob:
			n += max(0, off-h.claims[b])
		default:
			n += max(0, sizes[b]-h.claims[b])
		}
	}
	return n
}

// forget drops what the node answered, because it is sent an offer again.
func (h *holdings) forget() { h.held, h.sets, h.absent, h.claimed = nil, nil, 0, 0 }

// drop takes back the claims of the leading bytes of the blobs behind blob, and, with all, also those of leaves behind the
// good bytes of blob. It returns how many bytes that is.
func (h *holdings) drop(blob int, good int64, all bool) (less int64) {
	if h.sets != nil {
		h.sets = slices.Clone(h.sets)
	}
	for b := blob; b < len(h.claims); b++ {
		was := h.claimedOf(b)
		if b > blob {
			h.claims[b], good = 0, 0
		}
		if all && h.sets != nil && h.sets[b].Bytes(good) > 0 {
			h.sets[b] = h.sets[b].Before(good)
		}
		less += was - h.claimedOf(b) // leaves before a claim count there
	}
	h.claimed -= less
	return less
}

// owns reports whether the node claimed bytes of a blob between good and a mark at off.
func (h *holdings) owns(blob int, good, off int64) bool {
	return good < h.claims[blob] || h.sets != nil && h.sets[blob].Has(off-1)
}

// cut takes back the claim of the leading bytes of a blob from good on, and that of the leaf before off. It returns how
// many bytes that is.
func (h *holdings) cut(blob int, good, off int64) (less int64) {
	was := h.claimedOf(blob)
	h.claims[blob] = min(h.claims[blob], good)
	if h.sets != nil && h.sets[blob].Has(off-1) {
		h.sets = slices.Clone(h.sets)
		h.sets[blob] = h.sets[blob].Clone()
		h.sets[blob].Remove(off - 1)
	}
	less = max(0, was-h.claimedOf(blob))
	h.claimed -= less
	return less
}

// shrink notes that a blob has so many bytes less than it counted for.
func (h *holdings) shrink(blob int, less int64) {
	if h.held != nil && h.held[blob] < 0 {
		h.absent -= less
	}
}

// lacked is how many bytes the node had to receive when it answered, as far as its claims were right. Of a stream
// nobody knows how many those are until it was read: it counts as sizeOf says.
func (h *holdings) lacked() int64 { return max(0, h.absent-h.claimed) }

// sizeOf is how many bytes a blob has, of a stream more than any has.
func sizeOf(d v1.Descriptor) int64 {
	if d.Size < 0 {
		return 1 << 55
	}
	return d.Size
}

// left is how many bytes of the blobs a node still has to receive when it has received so many; ok is
// false when nobody knows how many there are.
func (h *holdings) left(blobs []v1.Descriptor, received int64) (left int64, ok bool) {
	left = -received
	for b, d := range blobs {
		if d.Size < 0 {
			return 0, false
		}
		if h.held[b] < 0 {
			left += d.Size - h.claimedOf(b)
		}
	}
	return left, true
}
