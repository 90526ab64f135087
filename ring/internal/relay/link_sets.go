package relay

import (
	"errors"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/dolly-img/dolly-img/ring/leaf"
)

// needSize is how many bytes a need takes.
const needSize = 16

// Weight is how many needs the link of a DIAL counts as: its own, and its sets of leaves by what they take.
func Weight(d *wire.Dial) int {
	n := len(d.Needs)
	for _, l := range d.Leaves {
		n += (len(l.Set) + needSize - 1) / needSize
	}
	return n
}

// setsOf returns, for each need of a DIAL, the leaves that the receiver holds, or nil. It returns none where it holds none.
func (r *Relay) setsOf(d *wire.Dial) ([]*leaf.Set, error) {
	if len(d.Leaves) == 0 {
		return nil, nil
	}
	sets, rest := make([]*leaf.Set, len(d.Needs)), d.Leaves
	for i, n := range d.Needs {
		if len(rest) == 0 || int64(rest[0].Blob) != n[0] {
			continue
		}
		blob := r.descs[n[0]]
		if !leaf.In(blob) {
			break
		}
		set, err := leaf.ParseSet(rest[0].Set, blob.Size, r.sizes().Mark)
		if err != nil {
			return nil, err
		}
		sets[i], rest = set, rest[1:]
	}
	if len(rest) > 0 {
		return nil, errors.New("malformed sets of leaves")
	}
	return sets, nil
}
