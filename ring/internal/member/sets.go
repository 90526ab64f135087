package member

import (
	"github.com/dolly-img/dolly-img/ring/internal/wire"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// This file has what a node holds before it is fed, and what it says of that.

// holds takes what the Sink has.
func (m *Machine) holds(ev EvHeld) {
	for i := range m.blobs {
		b := &m.blobs[i]
		d := v1.Descriptor{Digest: b.want, Size: b.size}
		if b.held = wire.Vouched(d, ev.Held[i]); b.held {
			continue
		}
		b.claim = wire.Claimed(d, ev.Held[i], m.markEvery)
		if b.leaves && ev.Sets != nil {
			b.set = ev.Sets[i]
		}
		b.walk(b.claim)
	}
}

// leaves returns the sets of the blobs that lack bytes.
func (m *Machine) leaves() (all []wire.Leaves) {
	for i := range m.blobs {
		if b := &m.blobs[i]; b.lacks() && b.set.Any(b.accepted, b.size) {
			all = append(all, wire.Leaves{Blob: i, Set: b.set.Bits()})
		}
	}
	return all
}
