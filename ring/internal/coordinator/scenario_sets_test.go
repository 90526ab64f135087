package coordinator

import (
	"fmt"
	"strings"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/dolly-img/dolly-img/ring/leaf"
)

// Sets of leaves in the scenarios: 0110 are the second and third of four. Where something stands before it, as in 1:0110, that
// is the number of the blob.

func (s *scenario) leaves(text string) []wire.Leaves {
	if text == "" {
		return nil
	}
	blob := 0
	if k, bits, ok := strings.Cut(text, ":"); ok {
		fmt.Sscan(k, &blob)
		text = bits
	}
	b := make([]byte, (len(text)+7)/8)
	for k, c := range text {
		if c == '1' {
			b[k/8] |= 1 << (k % 8)
		}
	}
	return []wire.Leaves{{Blob: blob, Set: b}}
}

// without tells which leaves are left out.
func (s *scenario) without(leaves []wire.Leaves) (text string) {
	for _, l := range leaves {
		text += ", without "
		for k := range (s.c.blobs[l.Blob].Size + leaf.Size - 1) / leaf.Size {
			text += fmt.Sprint(l.Set[k/8] >> (k % 8) & 1)
		}
	}
	return text
}

// common are the leaves that nobody lacks.
func common(a ActSource) (all []wire.Leaves) {
	for b, set := range a.Common {
		if set != nil {
			all = append(all, wire.Leaves{Blob: b, Set: set.Bits()})
		}
	}
	return all
}
