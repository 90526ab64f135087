package ring

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
)

// summedSource compares at the end what it was told was read.
type summedSource struct {
	*memSource
	told *[]digest.Digest
}

func (s summedSource) Sums(read []digest.Digest) { *s.told = slices.Clone(read) }

func (s summedSource) Unchanged(context.Context) error {
	for i, b := range s.blobs {
		if (*s.told)[i] != digest.FromBytes(b) {
			return fmt.Errorf("blob %d was read as %s", i, (*s.told)[i])
		}
	}
	return nil
}

// A source is told what was read before it says that this is what it holds.
func TestSums(t *testing.T) {
	blobs := [][]byte{random(1, 3<<20), random(2, 100)}
	c := newCluster(t, 2, nil)
	r, err := send(t, c.config(summedSource{newMemSource(true, blobs...), new([]digest.Digest)}))
	if err != nil {
		t.Fatal(err)
	}
	c.wants(r, Committed, blobs...)
}
