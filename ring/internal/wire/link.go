package wire

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
)

// These begin a link (PROTOCOL.md section 5). The first byte of a preamble differs from that of a TLS ClientHello (0x16),
// which tells a plain link from one with TLS.
const (
	Preamble       = "DLINK/1\n"
	PaddedPreamble = "DLINK/2\n" // the headers of its frames are padded
	ZerosPreamble  = "DLINK/3\n" // they are, and it carries ZERO frames and flags
	ChallengeSize  = 32
	LinkHelloSize  = helloBody + sha256.Size
	SecretSize     = 32

	helloBody = 16 + 4 + 4 + 4 + 8
)

// These are the receiver's answers to a hello.
const (
	LinkHelloOK      = 0
	LinkHelloRefused = 1
	LinkHelloStale   = 2
)

// ID names a transfer or an instance. It is 16 random bytes, and in text lower-case hex.
type ID [16]byte

func (id ID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText returns the hex text, which stands for an ID in JSON.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText accepts exactly what MarshalText makes.
func (id *ID) UnmarshalText(b []byte) error {
	if len(b) != 32 {
		return fmt.Errorf("identity of %d characters", len(b))
	}
	if _, err := hex.Decode(id[:], b); err != nil {
		return err
	}
	if id.String() != string(b) {
		return fmt.Errorf("identity is not lower-case hex")
	}
	return nil
}

// LinkHello opens a link. It says which link this is, and which byte comes first. Its preamble says whether headers are
// padded, and whether, besides, ZERO frames and flags may come.
type LinkHello struct {
	Padded     bool
	Zeros      bool
	Transfer   ID
	Link       uint32
	Generation uint32
	Blob       uint32
	Offset     int64
}

// Preamble returns what the feeder writes first.
func (h LinkHello) Preamble() string {
	switch {
	case h.Zeros:
		return ZerosPreamble
	case h.Padded:
		return PaddedPreamble
	}
	return Preamble
}

// KnownPreamble reports whether a link may begin so.
func KnownPreamble(preamble string) bool {
	return preamble == Preamble || preamble == PaddedPreamble || preamble == ZerosPreamble
}

// Encode returns the bytes of h behind its preamble. They prove for this challenge that the feeder knows the secret of
// the link.
func (h LinkHello) Encode(secret, challenge []byte) []byte {
	b := make([]byte, helloBody, LinkHelloSize)
	copy(b, h.Transfer[:])
	binary.BigEndian.PutUint32(b[16:], h.Link)
	binary.BigEndian.PutUint32(b[20:], h.Generation)
	binary.BigEndian.PutUint32(b[24:], h.Blob)
	binary.BigEndian.PutUint64(b[28:], uint64(h.Offset))
	m := hmac.New(sha256.New, secret)
	m.Write([]byte(h.Preamble()))
	m.Write(challenge)
	m.Write(b)
	return m.Sum(b)
}

// ParseLinkHello decodes a hello and its preamble. It does not check the proof: Proves does, once the secret of the link
// was looked up.
func ParseLinkHello(preamble string, b []byte) (LinkHello, error) {
	if !KnownPreamble(preamble) {
		return LinkHello{}, errors.New("not a link")
	}
	if len(b) != LinkHelloSize {
		return LinkHello{}, fmt.Errorf("link hello of %d bytes", len(b))
	}
	off := binary.BigEndian.Uint64(b[28:])
	if off > math.MaxInt64 {
		return LinkHello{}, fmt.Errorf("link hello: offset overflows")
	}
	return LinkHello{
		Padded:     preamble != Preamble,
		Zeros:      preamble == ZerosPreamble,
		Transfer:   ID(b[:16]),
		Link:       binary.BigEndian.Uint32(b[16:]),
		Generation: binary.BigEndian.Uint32(b[20:]),
		Blob:       binary.BigEndian.Uint32(b[24:]),
		Offset:     int64(off),
	}, nil
}

// Proves reports whether b, from which h was parsed, was made with secret for challenge.
func (h LinkHello) Proves(b, secret, challenge []byte) bool {
	return hmac.Equal(b, h.Encode(secret, challenge))
}
