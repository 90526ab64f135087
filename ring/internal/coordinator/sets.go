package coordinator

import (
	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/dolly-img/dolly-img/ring/leaf"
)

// setsOf reads the sets of leaves of a message of a node, by blob. It returns nil where there are none, and right is false if
// one of them is of no blob in leaves, or is no set of its leaves.
func (c *Machine) setsOf(leaves []wire.Leaves) (sets []*leaf.Set, right bool) {
	if len(leaves) == 0 {
		return nil, true
	}
	sets = make([]*leaf.Set, len(c.blobs))
	last := -1
	for _, l := range leaves {
		if l.Blob <= last || l.Blob >= len(c.blobs) || !leaf.In(c.blobs[l.Blob]) {
			return nil, false
		}
		set, err := leaf.ParseSet(l.Set, c.blobs[l.Blob].Size, c.cfg.MarkEvery)
		if err != nil {
			return nil, false
		}
		sets[l.Blob], last = set, l.Blob
	}
	return sets, true
}

// setOf returns the set of a blob among those that setsOf has read, or nil.
func (c *Machine) setOf(leaves []wire.Leaves, blob int) *leaf.Set {
	for _, l := range leaves {
		if l.Blob == blob {
			set, _ := leaf.ParseSet(l.Set, c.blobs[blob].Size, c.cfg.MarkEvery)
			return set
		}
	}
	return nil
}
