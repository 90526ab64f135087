package demo

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"sync"
)

// damager is a bad cable: it passes connections on to a node, and changes one byte, once, on a plain data link
// (ring/PROTOCOL.md, sections 5 and 6).
type damager struct {
	listener net.Listener
	to       string // address of the node
	// The byte is in the first frame that begins at offset from of the image, or behind it.
	from uint64
	// told is called when the byte was changed.
	told func(offset uint64)

	once sync.Once
	done sync.WaitGroup
}

// The layout of what passes: the feeder opens a link with a preamble and a hello, and then sends frames. Their headers
// are padded on a link whose preamble says so, which all do but the oldest.
const (
	linkOpening   = 'D'
	linkUnpadded  = "DLINK/1\n"
	linkHello     = 68
	frameHeader   = 24
	paddedHeader  = 64
	frameMost     = 1 << 20
	frameData     = 1
	frameZero     = 3 // stands for so many zeros, and has no payload
	offsetInFrame = 8
	lengthInFrame = 16
)

// newDamager listens on the loopback interface and passes connections on to the address to.
func newDamager(to string, from int64, told func(offset uint64)) (*damager, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	d := &damager{listener: l, to: to, from: uint64(from), told: told}
	d.done.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			d.done.Go(func() { d.pass(c.(*net.TCPConn)) })
		}
	})
	return d, nil
}

func (d *damager) addr() string { return d.listener.Addr().String() }

// close waits for the connections. The node has closed them by then.
func (d *damager) close() {
	d.listener.Close()
	d.done.Wait()
}

func (d *damager) pass(up *net.TCPConn) {
	defer up.Close()
	c, err := net.Dial("tcp", d.to)
	if err != nil {
		return
	}
	down := c.(*net.TCPConn)
	defer down.Close()
	back := make(chan struct{})
	go func() {
		defer close(back)
		_, _ = io.Copy(up, down)
		up.Close() // the node has closed the connection and reads no more
	}()
	r := bufio.NewReaderSize(up, 256<<10)
	if first, err := r.Peek(1); err == nil && first[0] == linkOpening {
		d.link(r, down)
	} else {
		_, _ = io.Copy(down, r)
	}
	_ = down.CloseWrite()
	<-back
}

// link passes frames on until one end closes the link.
func (d *damager) link(r io.Reader, down io.Writer) {
	buf := make([]byte, paddedHeader+frameMost)
	preamble := buf[:len(linkUnpadded)]
	if _, err := io.ReadFull(r, preamble); err != nil {
		return
	}
	header := paddedHeader
	if string(preamble) == linkUnpadded {
		header = frameHeader
	}
	if _, err := down.Write(preamble); err != nil {
		return
	}
	if _, err := io.CopyN(down, r, linkHello); err != nil {
		return
	}
	for {
		if _, err := io.ReadFull(r, buf[:header]); err != nil {
			return
		}
		n := binary.BigEndian.Uint32(buf[lengthInFrame:])
		if buf[0] == frameZero {
			n = 0
		}
		if n > frameMost {
			return
		}
		frame := buf[:header+int(n)]
		if _, err := io.ReadFull(r, frame[header:]); err != nil {
			return
		}
		if off := binary.BigEndian.Uint64(frame[offsetInFrame:]); frame[0] == frameData && off >= d.from {
			d.once.Do(func() {
				frame[len(frame)-1] ^= 1
				d.told(off + uint64(n) - 1)
			})
		}
		if _, err := down.Write(frame); err != nil {
			return
		}
	}
}
