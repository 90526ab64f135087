package wire

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
)

// This is the frame header of PROTOCOL.md section 6:
//
//	0      1       2          4        8            16         20       24
//	type | flags | reserved | blob   | offset     | length   | crc32c | payload
//	u8     u8      u16=0      u32      u64          u32        u32
//
// On a padded link zeros follow, up to 64 bytes. Then payloads begin at multiples of a cache line in the stream, as they
// do in memory, and the kernel copies them faster.
const (
	HeaderSize   = 24
	PaddedHeader = 64
	crcAt        = 20

	// MaxPayload is how many bytes a frame has at most.
	MaxPayload = 1 << 20
)

// MarkEvery is the distance of marks in bytes. No frame crosses a multiple of it. Other code gets the distance as a
// value, so that a simulation can have several marks in a small blob.
const MarkEvery = 4 << 20

// MarksAhead is how many marks a node is sent ahead of what it said to be good: those of 32 GiB. Other code gets it as a
// parameter, too.
const MarksAhead = 8192

// These are the frame types. Type 4 (zstd payload) is reserved.
const (
	Data = 1
	Fin  = 2
	Zero = 3 // a run of zeros, without a payload
)

// flagMore is the only flag, of a DATA frame: see Header.
const flagMore = 1

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Header is a decoded frame header.
type Header struct {
	Type   byte
	Blob   uint32
	Offset int64
	Length int
	CRC    uint32
	// More says that as many bytes come next as DATA, at least. A receiver may then wait for them at once.
	More bool
}

// FrameError says why a frame was refused.
type FrameError struct{ Reason string }

func (e *FrameError) Error() string { return "bad frame: " + e.Reason }

// ParseHeader decodes a header and checks everything but the CRC. Marks are markEvery bytes apart.
func ParseHeader(b *[HeaderSize]byte, markEvery int64) (Header, error) {
	off := binary.BigEndian.Uint64(b[8:])
	h := Header{
		Type:   b[0],
		Blob:   binary.BigEndian.Uint32(b[4:]),
		Offset: int64(off),
		Length: int(binary.BigEndian.Uint32(b[16:])),
		CRC:    binary.BigEndian.Uint32(b[crcAt:]),
		More:   b[1]&flagMore != 0,
	}
	switch {
	case b[1]&^flagMore != 0 || b[2] != 0 || b[3] != 0 || h.More && h.Type != Data:
		return h, &FrameError{"reserved bits are set"}
	case h.Type == Fin:
		if h.Blob != 0 || off != 0 || h.Length != 0 {
			return h, &FrameError{"final record with fields"}
		}
	case h.Type != Data && h.Type != Zero:
		return h, &FrameError{fmt.Sprintf("unknown type %d", h.Type)}
	case h.Length < 1 || h.Type == Data && h.Length > MaxPayload:
		return h, &FrameError{fmt.Sprintf("payload of %d bytes", h.Length)}
	case off > math.MaxInt64-math.MaxUint32:
		return h, &FrameError{"offset overflows"}
	case h.Offset/markEvery != (h.Offset+int64(h.Length)-1)/markEvery:
		return h, &FrameError{"payload crosses a mark"}
	case h.More && (h.Offset+int64(h.Length))%markEvery == 0:
		return h, &FrameError{"more is promised behind a mark"}
	}
	return h, nil
}

// CheckPadding checks the bytes that follow the header on a padded link.
func CheckPadding(b []byte) error {
	for _, x := range b {
		if x != 0 {
			return &FrameError{"padding is not zero"}
		}
	}
	return nil
}

// PutData fills b with the header of a DATA frame of payload. Nothing is sure to come behind it.
func PutData(b *[HeaderSize]byte, blob uint32, off int64, payload []byte) {
	put(b, Data, 0, blob, off, len(payload), payload)
}

// PutDataMore is PutData for a frame behind which at least as many bytes come next as DATA. It does not end at a mark.
func PutDataMore(b *[HeaderSize]byte, blob uint32, off int64, payload []byte) {
	put(b, Data, flagMore, blob, off, len(payload), payload)
}

// PutZero fills b with the header of a ZERO frame, which stands for n bytes.
func PutZero(b *[HeaderSize]byte, blob uint32, off int64, n int) { put(b, Zero, 0, blob, off, n, nil) }

// More reports whether a header has the flag that Header.More tells of.
func More(b *[HeaderSize]byte) bool { return b[0] == Data && b[1]&flagMore != 0 }

func put(b *[HeaderSize]byte, kind, flags byte, blob uint32, off int64, n int, payload []byte) {
	*b = [HeaderSize]byte{kind, flags}
	binary.BigEndian.PutUint32(b[4:], blob)
	binary.BigEndian.PutUint64(b[8:], uint64(off))
	binary.BigEndian.PutUint32(b[16:], uint32(n))
	binary.BigEndian.PutUint32(b[crcAt:], Sum(b, payload))
}

// PutFin fills b with the final record.
func PutFin(b *[HeaderSize]byte) {
	*b = [HeaderSize]byte{0: Fin}
	binary.BigEndian.PutUint32(b[crcAt:], Sum(b, nil))
}

// Sum returns the CRC32C of a header without its CRC, and of the payload.
func Sum(b *[HeaderSize]byte, payload []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:crcAt], castagnoli), castagnoli, payload)
}
