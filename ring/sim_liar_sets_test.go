package ring

import (
	"encoding/binary"
	"io"
	"slices"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/dolly-img/dolly-img/ring/leaf"
)

// What liars say of sets of leaves: of all leaves, of none, of some, or of more than there are. Where they dial others, they take what
// these hold for such a set.

// claims says whether the liar has a trait of such sets.
func (l *liarNode) claims(what string) bool {
	return slices.ContainsFunc([]string{"all", "none", "some", "more"}, func(which string) bool { return l.is(what + "-" + which) })
}

// sets are those of the blobs in leaves, or of those of them that are needed.
func (l *liarNode) sets(what string, needs [][2]int64) (all []wire.Leaves) {
	for b, d := range l.blobs {
		if !leaf.In(d) || needs != nil && !slices.ContainsFunc(needs, func(n [2]int64) bool { return n[0] == int64(b) }) {
			continue
		}
		set := leaf.SetOf(d.Size, simMark, func(int64) bool {
			return l.is(what+"-all") || l.is(what+"-some") && l.rand.IntN(2) == 0
		}).Bits()
		if l.is(what + "-more") {
			set = append(slices.Clone(set), 0xff)
		}
		all = append(all, wire.Leaves{Blob: b, Set: set})
	}
	return all
}

func (l *liarNode) compared(m *wire.Compared) []wire.Message {
	switch {
	case l.is("no-compared"):
		return nil
	case l.is("compared-again"):
		other := &wire.Compared{}
		for _, k := range m.Leaves {
			other.Leaves = append(other.Leaves, wire.Leaves{Blob: k.Blob, Set: make([]byte, len(k.Set))})
		}
		return []wire.Message{other, m, other}
	case l.claims("compared"):
		m.Leaves = l.sets("compared", nil)
	}
	return []wire.Message{m}
}

// readDials reads the messages of the server, of which DIALs say something else of what the receiver holds.
func (c *liarConn) readDials(b []byte) (int, error) {
	if len(c.told) == 0 {
		var size [4]byte
		had := min(c.bytes, 1) // of HELLO its first byte was read before, which is 0
		if _, err := io.ReadFull(c.Conn, size[had:]); err != nil {
			return 0, err
		}
		body := make([]byte, binary.BigEndian.Uint32(size[:]))
		if _, err := io.ReadFull(c.Conn, body); err != nil {
			return 0, err
		}
		c.bytes = 0
		c.told = append(size[had:], body...)
		if m, err := wire.Decode(body); err == nil {
			if d, ok := m.(*wire.Dial); ok {
				c.liar.mu.Lock()
				d.Leaves = c.liar.sets("dials", d.Needs)
				c.liar.mu.Unlock()
				if c.told, err = wire.Encode(d); err != nil {
					return 0, err
				}
			}
		}
	}
	n := copy(b, c.told)
	c.told = c.told[n:]
	return n, nil
}
