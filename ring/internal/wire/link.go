package wire

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
)

// The opening of a link, PROTOCOL.md section 5. Its first byte tells a plain link
// from a TLS ClientHello (0x16).
const (
	Preamble      = "DLINK/1\n"
	ChallengeSize = 32
	LinkHelloSize = helloBody + sha256.Size
	SecretSize    = 32

	helloBody = 16 + 4 + 4 + 4 + 8
)

// The receiver's answer to a hello.
const (
	LinkHelloOK      = 0
	LinkHelloRefused = 1
	LinkHelloStale   = 2
)

// ID names a transfer or an instance: 16 random bytes, in text lower-case hex.
type ID [16]byte

func (id ID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText makes ID its hex text in JSON.
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

// LinkHello opens a link: which one, and the first byte that will come.
type LinkHello struct {
	Transfer   ID
	Link       uint32
	Generation uint32
	Blob       uint32
	Offset     int64
}

// Encode makes the bytes of h, proving knowledge of the link's secret for this
// challenge.
func (h LinkHello) Encode(secret, challenge []byte) []byte {
	b := make([]byte, helloBody, LinkHelloSize)
	copy(b, h.Transfer[:])
	binary.BigEndian.PutUint32(b[16:], h.Link)
	binary.BigEndian.PutUint32(b[20:], h.Generation)
	binary.BigEndian.PutUint32(b[24:], h.Blob)
	binary.BigEndian.PutUint64(b[28:], uint64(h.Offset))
	return append(b, proof(secret, challenge, b)...)
}

// ParseLinkHello decodes a hello; its proof is checked by Proves, once the link's
// secret was looked up.
func ParseLinkHello(b []byte) (LinkHello, error) {
	if len(b) != LinkHelloSize {
		return LinkHello{}, fmt.Errorf("link hello of %d bytes", len(b))
	}
	off := binary.BigEndian.Uint64(b[28:])
	if off > math.MaxInt64 {
		return LinkHello{}, fmt.Errorf("link hello: offset overflows")
	}
	return LinkHello{
		Transfer:   ID(b[:16]),
		Link:       binary.BigEndian.Uint32(b[16:]),
		Generation: binary.BigEndian.Uint32(b[20:]),
		Blob:       binary.BigEndian.Uint32(b[24:]),
		Offset:     int64(off),
	}, nil
}

// Proves reports whether the encoded hello b was made with secret for challenge.
func Proves(b, secret, challenge []byte) bool {
	return len(b) == LinkHelloSize && hmac.Equal(b[helloBody:], proof(secret, challenge, b[:helloBody]))
}

func proof(secret, challenge, body []byte) []byte {
	m := hmac.New(sha256.New, secret)
	m.Write([]byte(Preamble))
	m.Write(challenge)
	m.Write(body)
	return m.Sum(nil)
}
