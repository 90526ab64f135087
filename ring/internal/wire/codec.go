package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// What a control message may be, so that no peer makes this process hold much (PROTOCOL.md section 3).
const (
	// MaxMessage bounds type and body of a message that tells of all blobs of a transfer, and MaxShort those of the others.
	MaxMessage = 4 << 20
	MaxShort   = 64 << 10
	// MaxBlobs is how many blobs a transfer has at most: their digests fit a VERIFIED.
	MaxBlobs = 50_000
	// maxCommas and maxObjects bound what is in a message, because an empty string or object takes many times the memory
	// of its bytes. Four values for each blob are more than any message has.
	maxCommas  = 4 * MaxBlobs
	maxObjects = MaxBlobs + 1024
)

// limitOf is how long a message of a kind may be.
func limitOf(kind byte) int {
	switch makers[kind]().(type) {
	case *Offer, *Answer, *Need, *Dial, *Marks, *Verified, *Compared, *Ask, *Holds, *Want, *Tend, *Tended:
		return MaxMessage
	}
	return MaxShort
}

// checkSize says why a message of that kind and length is not read.
func checkSize(kind byte, n int) error {
	switch {
	case n < 1 || n > MaxMessage:
	case int(kind) >= len(makers) || makers[kind] == nil:
		return malformed("unknown control message type %d", kind)
	case n <= limitOf(kind):
		return nil
	}
	return malformed("control message of %d bytes", n)
}

// Encode makes the bytes of m, length and type included.
func Encode(m Message) ([]byte, error) {
	if err := checkBounds(m); err != nil {
		return nil, err
	}
	body, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	if bytes.Contains(body, []byte(`\ufffd`)) {
		// Text that is not UTF-8, such as an old file name: encoded, read and
		// encoded again it is in its one encoding.
		again := makers[m.kind()]()
		if err := json.Unmarshal(body, again); err != nil {
			return nil, err
		}
		if body, err = json.Marshal(again); err != nil {
			return nil, err
		}
	}
	if limit := limitOf(m.kind()); len(body)+1 > limit {
		return nil, fmt.Errorf("control message of %d bytes, the limit is %d", len(body)+1, limit)
	}
	b := make([]byte, 5, 5+len(body))
	binary.BigEndian.PutUint32(b, uint32(len(body)+1))
	b[4] = m.kind()
	return append(b, body...), nil
}

// MalformedError says that a message does not read as one that this package knows. Its
// sender most likely speaks a later version.
type MalformedError struct {
	// Said is what a HELLO or WELCOME tells of its version all the same.
	Said struct {
		Min, Max, Version int
		Software          string
	}
	reason string
}

func (e *MalformedError) Error() string { return e.reason }

func malformed(format string, args ...any) *MalformedError {
	return &MalformedError{reason: fmt.Sprintf(format, args...)}
}

// Decode parses type and body of a message, without its length. Only the one
// encoding Encode makes is accepted, which rules out unknown and repeated fields. The
// error is a *MalformedError.
func Decode(b []byte) (Message, error) {
	if len(b) < 1 {
		return nil, malformed("control message of no bytes")
	}
	if err := checkSize(b[0], len(b)); err != nil {
		return nil, err
	}
	if bytes.Count(b, []byte{','}) > maxCommas || bytes.Count(b, []byte{'{'}) > maxObjects {
		return nil, malformed("control message type %d has too many parts", b[0])
	}
	m := makers[b[0]]()
	err := json.Unmarshal(b[1:], m)
	if err == nil {
		err = checkBounds(m)
	}
	if err == nil {
		if again, e := json.Marshal(m); e == nil && bytes.Equal(again, b[1:]) {
			return m, nil
		}
		err = errors.New("not in its one encoding")
	}
	bad := malformed("control message type %d: %v", b[0], err)
	switch m.(type) {
	case *Hello, *Welcome:
		_ = json.Unmarshal(b[1:], &bad.Said) // as far as it goes
	}
	return nil, bad
}

// Read reads type and body of one message, for Decode. At a clean end between messages it returns io.EOF. Memory grows with
// what really arrives, not with what a length claims. Before more than MaxShort of a message is read, long is called, which may
// wait; its error is returned.
func Read(r io.Reader, long func() error) ([]byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:4]); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(r, head[4:]); err != nil {
		return nil, unexpected(err)
	}
	n := binary.BigEndian.Uint32(head[:])
	if err := checkSize(head[4], int(n)); err != nil {
		return nil, err
	}
	b := append(make([]byte, 0, min(n, MaxShort)), head[4])
	for len(b) < int(n) {
		if len(b) == MaxShort {
			if err := long(); err != nil {
				return nil, err
			}
		}
		if len(b) == cap(b) {
			b = append(make([]byte, 0, min(int(n), 2*cap(b))), b...)
		}
		if _, err := io.ReadFull(r, b[len(b):cap(b)]); err != nil {
			return nil, unexpected(err)
		}
		b = b[:cap(b)]
	}
	return b, nil
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
