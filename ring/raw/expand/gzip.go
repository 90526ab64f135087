package expand

import (
	"bufio"
	"bytes"
	"errors"
	"io"

	"github.com/klauspost/compress/gzip"
)

// errRubbish is what is behind the end of the compressed bytes, and is no padding.
var errRubbish = errors.New("there is something else behind its end")

// members reads the members of a gzip file, one after the other (RFC 1952), and zeros behind the last one, with which
// tapes and disks are filled up. The library would take these for a broken member.
type members struct {
	r *bufio.Reader
	z *gzip.Reader
}

func newMembers(r *bufio.Reader) (io.ReadCloser, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, noEOF(err)
	}
	z.Multistream(false)
	return &members{r, z}, nil
}

func (m *members) Read(b []byte) (int, error) {
	for {
		n, err := m.z.Read(b)
		if err == io.EOF {
			err = m.next()
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// next begins the next member, and returns io.EOF where there is none.
func (m *members) next() error {
	first, err := m.r.Peek(1)
	if err != nil {
		return err
	}
	if first[0] == 0 {
		return onlyZeros(m.r)
	}
	// What is shorter than a header would count as one that is cut off.
	if magic, err := m.r.Peek(2); len(magic) > 1 && (magic[0] != 0x1f || magic[1] != 0x8b) {
		return errRubbish
	} else if err != nil {
		return noEOF(err)
	}
	if err := m.z.Reset(m.r); errors.Is(err, gzip.ErrHeader) {
		return errRubbish
	} else if err != nil {
		return noEOF(err)
	}
	m.z.Multistream(false)
	return nil
}

func (m *members) Close() error { return m.z.Close() }

// onlyZeros reads to the end, and returns io.EOF if all is zeros.
func onlyZeros(r *bufio.Reader) error {
	for {
		if _, err := r.Peek(1); err != nil {
			return err
		}
		b, _ := r.Peek(r.Buffered())
		if len(bytes.Trim(b, "\x00")) > 0 {
			return errRubbish
		}
		r.Discard(len(b))
	}
}

// noEOF returns err, and io.ErrUnexpectedEOF for an end that comes too early.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
