package expand

import (
	"bytes"
	"context"
	"fmt"
	"hash"
	"io"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

// mapped reads an image by its block map: zeros where the map has no range, whatever the file holds there, and bytes of
// the file, which are compared with the checksum of their range, elsewhere. A range that is entered behind its
// first byte is not compared; Unchanged sees to it that each was compared once. It is a ring.ZeroSkipper.
type mapped struct {
	ctx  context.Context
	im   *Image
	off  int64
	next int       // the range that off is in or before
	sum  hash.Hash // of the bytes of that range, from its first one on
	// src is the image as it is in the file. It stands at byte at, and goTo moves it forward.
	src  io.ReadCloser
	at   int64
	goTo func(off int64) error
}

// mapped begins to read at off.
func (im *Image) mapped(ctx context.Context, off int64) (_ io.ReadCloser, err error) {
	m := &mapped{ctx: ctx, im: im, off: off, next: im.blocks.at(off), at: off}
	if im.format != Raw {
		m.src, err = im.ahead(ctx, off)
		m.goTo = func(to int64) error { return skip(m.src, to-m.at) }
		return m, err
	}
	s, err := im.stream(ctx, nil)
	if err != nil {
		return nil, err
	}
	m.src, m.goTo = s, s.skipTo
	return m, m.goTo(off)
}

func (m *mapped) Close() error { return m.src.Close() }

func (m *mapped) Read(b []byte) (n int, err error) {
	if m.ctx.Err() != nil {
		return 0, context.Cause(m.ctx)
	}
	if m.off == m.im.size {
		return 0, m.end()
	}
	zeros := m.zeros()
	if zeros == 0 {
		return m.data(b, m.im.blocks.ranges[m.next])
	}
	n = int(min(int64(len(b)), zeros))
	clear(b[:n])
	m.off += int64(n)
	return n, nil
}

// zeros returns how many zeros come next.
func (m *mapped) zeros() int64 {
	if m.next == len(m.im.blocks.ranges) {
		return m.im.size - m.off
	}
	return max(0, m.im.blocks.ranges[m.next].off-m.off)
}

// leastZeros is the fewest zeros that SkipZeros skips. Fewer are read.
const leastZeros = 64 << 10

// SkipZeros skips what the map leaves out.
func (m *mapped) SkipZeros(most int64) (int64, error) {
	n := min(most, m.zeros())
	if n < leastZeros {
		return 0, nil
	}
	m.off += n
	return n, nil
}

// move moves src to off.
func (m *mapped) move() error {
	if m.at == m.off {
		return nil
	}
	err := m.goTo(m.off)
	m.at = m.off
	return err
}

// data reads bytes of the range r.
func (m *mapped) data(b []byte, r blockRange) (int, error) {
	if err := m.move(); err != nil {
		return 0, err
	}
	if m.off == r.off && r.sum != nil {
		m.sum = m.im.blocks.hash()
	}
	n, err := m.src.Read(b[:min(int64(len(b)), r.end-m.off)])
	if err != nil && n == 0 {
		return 0, noEOF(err) // src has said before if the image is too short
	}
	if m.sum != nil {
		m.sum.Write(b[:n])
	}
	m.off += int64(n)
	if m.at = m.off; m.off < r.end {
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
	if err := m.move(); err != nil {
		return err
	}
	n, err := m.src.Read(make([]byte, 1))
	if n > 0 && err == nil {
		return wrong{fmt.Errorf("input %s goes on behind byte %d", m.im.name, m.off)}
	}
	return err
}
