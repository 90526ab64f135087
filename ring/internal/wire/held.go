package wire

import (
	"slices"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Vouched says whether an ANSWER's held bytes are a blob that is there whole and
// has a digest to be known by.
func Vouched(d v1.Descriptor, held int64) bool {
	return d.Size > 0 && d.Digest != "" && held == d.Size
}

// Moved says whether bytes that a node received are news to it. Of an offer without any digest a node
// can claim what it has, and not vouch for it: it receives the end of it, to compare.
func Moved(blobs []v1.Descriptor, received int64) bool {
	return received > 0 && slices.ContainsFunc(blobs, func(d v1.Descriptor) bool { return d.Digest != "" })
}

// Claimed is the part of held that marks can judge, where they are so many bytes apart.
func Claimed(d v1.Descriptor, held, markEvery int64) int64 {
	if d.Size >= 0 {
		held = min(held, d.Size)
	}
	return max(0, held/markEvery*markEvery)
}
