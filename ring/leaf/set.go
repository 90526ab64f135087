package leaf

import (
	"errors"
	"math/bits"
	"slices"
)

// maxBits is how many bits a Set has at most: one for each leaf up to 2 TiB.
const maxBits = 1 << 19

// Set says which leaves of a blob somebody holds. One bit stands for one leaf, or in a blob of more than 2^19 leaves for the
// least power of two of leaves with which 2^19 bits are enough: they are in the set only together. A nil Set is an empty one
// that cannot grow. A Set is not safe for use by several goroutines while it changes.
type Set struct {
	size int64 // of the blob, in bytes
	unit int64 // what one bit stands for, in bytes
	bits []byte
}

// NewSet returns an empty set of the leaves of a blob of size bytes. each is the length of a leaf in bytes, which is Size
// but in simulations.
func NewSet(size, each int64) *Set {
	unit := each
	for units(size, unit) > maxBits {
		unit *= 2
	}
	return &Set{size, unit, make([]byte, (units(size, unit)+7)/8)}
}

// units is how many bits size bytes need. A size may be any that an offer has: nothing overflows.
func units(size, unit int64) int64 {
	n := size / unit
	if size%unit > 0 {
		n++
	}
	return n
}

// after returns where the bytes end that share a bit with the one at off, which is in the blob.
func (s *Set) after(off int64) int64 {
	off -= off % s.unit
	return off + min(s.unit, s.size-off)
}

// SetOf returns the set of those leaves for which good returns true. It is called with where a leaf begins.
func SetOf(size, each int64, good func(off int64) bool) *Set {
	s := NewSet(size, each)
next:
	for off := int64(0); off < size; off = s.after(off) {
		for leaf, end := off, s.after(off); leaf < end; leaf += min(each, end-leaf) {
			if !good(leaf) {
				continue next
			}
		}
		s.Add(off)
	}
	return s
}

// ParseSet reads what Bits made of a set of a blob of size bytes.
func ParseSet(b []byte, size, each int64) (*Set, error) {
	s := NewSet(size, each)
	if len(b) != len(s.bits) {
		return nil, errors.New("a set of leaves of another blob")
	}
	copy(s.bits, b)
	if n := units(size, s.unit) % 8; n > 0 && b[len(b)-1]>>n != 0 {
		return nil, errors.New("a set of leaves that the blob does not have")
	}
	return s, nil
}

// Bits returns the set as a bitmap, which must not be changed. The lowest bit of the first byte stands for the front of the
// blob. Bits behind its end are zero.
func (s *Set) Bits() []byte { return s.bits }

// Clone returns a copy.
func (s *Set) Clone() *Set {
	if s == nil {
		return nil
	}
	return &Set{s.size, s.unit, slices.Clone(s.bits)}
}

// Unit is how many bytes one bit stands for.
func (s *Set) Unit() int64 { return s.unit }

// Has reports whether the leaf with the byte at off is in the set.
func (s *Set) Has(off int64) bool {
	if s == nil || off < 0 || off >= s.size {
		return false
	}
	k := off / s.unit
	return s.bits[k/8]>>(k%8)&1 == 1
}

// Add adds the leaf with the byte at off, and with it all leaves that its bit stands for.
func (s *Set) Add(off int64) {
	k := off / s.unit
	s.bits[k/8] |= 1 << (k % 8)
}

// Remove removes the leaf with the byte at off, and with it all leaves that its bit stands for.
func (s *Set) Remove(off int64) {
	k := off / s.unit
	s.bits[k/8] &^= 1 << (k % 8)
}

// Next returns where the first byte at or behind off is whose leaf is not in the set, or where the blob ends.
func (s *Set) Next(off int64) int64 {
	for s.Has(off) {
		off = s.after(off)
	}
	return off
}

// Until returns where the first byte at or behind off is whose leaf is in the set, or where the blob ends.
func (s *Set) Until(off int64) int64 {
	for off < s.size && !s.Has(off) {
		off = s.after(off)
	}
	return off
}

// Any reports whether a leaf is in the set that has a byte from off on, before end.
func (s *Set) Any(off, end int64) bool { return s != nil && s.Until(off) < min(end, s.size) }

// Bytes returns how many bytes the leaves of the set have that begin at or behind off.
func (s *Set) Bytes(off int64) (n int64) {
	if s == nil {
		return 0
	}
	first := units(off, s.unit)
	for i, b := range s.bits {
		if k := int64(i) * 8; k < first {
			b = b >> min(8, first-k) << min(8, first-k)
		}
		n += int64(bits.OnesCount8(b)) * s.unit
	}
	if last := s.size - s.size%s.unit; last < s.size && last >= off && s.Has(last) {
		n -= s.unit - (s.size - last)
	}
	return n
}

// Before returns a copy without the leaves that begin at or behind off.
func (s *Set) Before(off int64) *Set {
	o := NewSet(s.size, s.unit)
	for at := s.Until(0); at < min(off, s.size); at = s.Until(s.after(at)) {
		o.Add(at)
	}
	return o
}

// Keep removes all leaves that are not in o, which is a set of the same blob. nil is an empty one.
func (s *Set) Keep(o *Set) {
	for i := range s.bits {
		if o == nil {
			s.bits[i] = 0
		} else {
			s.bits[i] &= o.bits[i]
		}
	}
}
