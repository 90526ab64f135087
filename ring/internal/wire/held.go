package wire

import v1 "github.com/opencontainers/image-spec/specs-go/v1"

// Vouched says whether an ANSWER's held bytes are a blob that is there whole and
// has a digest to be known by.
func Vouched(d v1.Descriptor, held int64) bool {
	return d.Size > 0 && d.Digest != "" && held == d.Size
}

// Claimed is the part of held that marks can judge.
func Claimed(d v1.Descriptor, held int64) int64 {
	if d.Size >= 0 {
		held = min(held, d.Size)
	}
	return max(0, held/MarkEvery*MarkEvery)
}
