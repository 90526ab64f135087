package expand

import (
	"bytes"
	"fmt"
	"hash"
	"io"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

// mapped reads an image by its block map: zeros where the map has no range, whatever the file holds there, and bytes of
// the file, which are compared with the checksum of their range, elsewhere. A range that is entered behind its
// first byte is not compared; Unchanged sees to it that each was compared once.
type mapped struct {
	im   *Image
	s    *stream
	off  int64
	next int // the range that off is in or before
	sum  hash.Hash
}

func (m *mapped) Close() error { return m.s.Close() }

func (m *mapped) Read(b []byte) (n int, err error) {
	if m.off == m.im.size {
		return 0, m.end()
	}
	until := m.im.size
	if m.next < len(m.im.blocks.ranges) {
		r := m.im.blocks.ranges[m.next]
		if m.off >= r.off {
			return m.data(b, r)
		}
		until = r.off
	}
	n = int(min(int64(len(b)), until-m.off))
	clear(b[:n])
	m.off += int64(n)
	return n, nil
}

// data reads bytes of the range r.
func (m *mapped) data(b []byte, r blockRange) (int, error) {
	if err := m.im.skip(m.s.in.ctx, m.s, m.off); err != nil {
		return 0, m.short(err)
	}
	if m.off == r.off && r.sum != nil {
		m.sum = m.im.blocks.hash()
	}
	n, err := m.s.Read(b[:min(int64(len(b)), r.end-m.off)])
	if err != nil && n == 0 {
		return 0, m.short(err)
	}
	if m.sum != nil {
		m.sum.Write(b[:n])
	}
	if m.off += int64(n); m.off < r.end {
		return n, nil
	}
	m.next++
	if m.sum != nil && !bytes.Equal(m.sum.Sum(nil), r.sum) {
		return 0, wrong{errkind.Errorf("input-damaged", "input %s has other bytes from %d to %d than its block map %s says",
			m.im.name, r.off, r.end, m.im.blocks.name)}
	}
	m.sum = nil
	return n, nil
}

// end reads what is behind the last range. It returns io.EOF if the image ends where the map says.
func (m *mapped) end() error {
	if err := m.im.skip(m.s.in.ctx, m.s, m.off); err != nil {
		return m.short(err)
	}
	n, err := m.s.Read(make([]byte, 1))
	if n > 0 && err == nil {
		return fmt.Errorf("input %s goes on behind byte %d", m.im.name, m.off)
	}
	return err
}

// short returns an error for an image that ends too early, and any other as it is.
func (m *mapped) short(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return m.s.length()
	}
	return err
}
