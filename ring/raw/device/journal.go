package device

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/dolly-img/dolly-img/ring/leaf"
	"github.com/dolly-img/dolly-img/ring/raw/disk"
)

// The journal has two slots behind the page of the mark. Each is a header of one page and a bitmap. Integers are
// little-endian.
//
//	0     magic       16 bytes
//	16    sequence    u64, the higher one of two valid slots counts
//	24    device      u64, its size in bytes
//	32    blob        u64, its size in bytes
//	40    leaf        u64, the size of a leaf in bytes
//	48    bitmap      u64, its length in bytes
//	56    identity    u16 length and 126 bytes: the device
//	184   transfer    u16 length and 126 bytes
//	312   zeros
//	4064  sum         the SHA-256 of the header before it and of the bitmap
//	4096  bitmap      a leaf.Set
const (
	slotMagic  = "dolly-img jrnl\x00\x01"
	slotSize   = 128 << 10
	slotAt     = disk.HalfWrittenAt + page
	maxBitmap  = 64 << 10
	nameLength = 126
	sumAt      = page - sha256.Size
)

// journal says which leaves of a blob a half-written device has.
type journal struct {
	sequence uint64
	device   int64 // size in bytes
	blob     int64 // size in bytes
	leaf     int64 // size in bytes
	identity string
	transfer string
	leaves   *leaf.Set
}

// same reports whether j describes the same blob on the same device as k, as far as a journal tells.
func (j *journal) same(k *journal) bool {
	return j.device == k.device && j.blob == k.blob && j.leaf == k.leaf && j.identity == k.identity
}

// at returns where j is written: the slots take turns.
func (j *journal) at() int64 { return slotAt + int64(j.sequence%2)*slotSize }

// encode returns the bytes of a slot, in memory for a direct write.
func (j *journal) encode() []byte {
	bitmap := j.leaves.Bits()
	b := aligned(page + int(up(int64(len(bitmap)), page)))
	copy(b, slotMagic)
	le := binary.LittleEndian
	le.PutUint64(b[16:], j.sequence)
	le.PutUint64(b[24:], uint64(j.device))
	le.PutUint64(b[32:], uint64(j.blob))
	le.PutUint64(b[40:], uint64(j.leaf))
	le.PutUint64(b[48:], uint64(len(bitmap)))
	putName(b[56:], j.identity)
	putName(b[184:], j.transfer)
	copy(b[page:], bitmap)
	sum := slotSum(b, bitmap)
	copy(b[sumAt:], sum[:])
	return b
}

func slotSum(header, bitmap []byte) [sha256.Size]byte {
	h := sha256.New()
	h.Write(header[:sumAt])
	h.Write(bitmap)
	return [sha256.Size]byte(h.Sum(nil))
}

func putName(b []byte, name string) {
	n := copy(b[2:2+nameLength], name)
	binary.LittleEndian.PutUint16(b, uint16(n))
}

func getName(b []byte) (string, error) {
	n := int(binary.LittleEndian.Uint16(b))
	if n > nameLength {
		return "", errors.New("journal: a name is too long")
	}
	return string(b[2 : 2+n]), nil
}

// decode reads a slot, of which b has slotSize bytes. A slot that is torn, never was one, or describes another blob or
// device than like does, is an error.
func decode(b []byte, like *journal) (*journal, error) {
	if len(b) != slotSize || !bytes.HasPrefix(b, []byte(slotMagic)) {
		return nil, errors.New("no journal")
	}
	le := binary.LittleEndian
	length := le.Uint64(b[48:])
	if length > maxBitmap {
		return nil, fmt.Errorf("journal: a bitmap of %d bytes", length)
	}
	bitmap := b[page : page+length]
	if sum := slotSum(b, bitmap); !bytes.Equal(sum[:], b[sumAt:page]) {
		return nil, errors.New("journal: its sum is wrong")
	}
	j := &journal{sequence: le.Uint64(b[16:]), device: int64(le.Uint64(b[24:])), blob: int64(le.Uint64(b[32:])), leaf: int64(le.Uint64(b[40:]))}
	var err error
	if j.identity, err = getName(b[56:]); err != nil {
		return nil, err
	}
	if j.transfer, err = getName(b[184:]); err != nil {
		return nil, err
	}
	if !j.same(like) {
		return nil, errors.New("journal: of another blob or device")
	}
	if j.leaves, err = leaf.ParseSet(bitmap, j.blob, j.leaf); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	return j, nil
}
