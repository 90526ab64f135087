package wire

import (
	"slices"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Vouched reports whether a node vouches for a blob of which it holds so many bytes, as its ANSWER says. It does if it
// holds the whole blob, and the blob has a digest by which the node knows it.
func Vouched(d v1.Descriptor, held int64) bool {
	return d.Size > 0 && d.Digest != "" && held == d.Size
}

// Moved reports whether the bytes that a node received are new to it. If an offer has no digest, a node can claim what it
// has and not vouch for it. So it receives the end of a blob that it has, to compare it.
func Moved(blobs []v1.Descriptor, received int64) bool {
	return received > 0 && slices.ContainsFunc(blobs, func(d v1.Descriptor) bool { return d.Digest != "" })
}

// Claimed returns the part of held that marks can judge. Marks are markEvery bytes apart.
func Claimed(d v1.Descriptor, held, markEvery int64) int64 {
	if d.Size >= 0 {
		held = min(held, d.Size)
	}
	return max(0, held/markEvery*markEvery)
}

// MaxMissed is how often a node goes back to a mark before it believes nothing more of what it holds in advance
// (PROTOCOL.md section 7, "Sets of leaves").
const MaxMissed = 3
