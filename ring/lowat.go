package ring

import (
	"encoding/binary"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxLow keeps the mark below half of a receive buffer that has not grown yet,
// beyond which the kernel would have to grow it for us.
const maxLow = 256 << 10

// lowConn is a TCP connection that tells the kernel how many bytes its reader
// waits for (SO_RCVLOWAT), so that it is woken once for many segments and not for
// each. The mark never exceeds what is sure to come: a reader with a higher one
// sleeps for ever at the end of the data.
//
// Plain, it reads straight through. Below TLS it has a large buffer, since
// tls.Conn asks for little at a time, and counts raw bytes: a frame is one record
// with the header and then records of 16 KiB, each 22 bytes longer than what it
// carries. It hands tls.Conn one record at a time, because tls.Conn would else
// take bytes ahead that could not be counted.
type lowConn struct {
	net.Conn
	sys  syscall.RawConn
	mark int // as the kernel has it

	due    int // bytes of the frame that have not arrived yet, raw under TLS
	secure bool
	buf    []byte
	r, w   int
	record int // bytes of the current TLS record not yet handed on
}

const (
	tlsHeader   = 5
	tlsOverhead = 22 // 5 header, 1 inner type, 16 tag
	tlsRecord   = 16 << 10
)

// newLowConn wraps a connection whose first bytes were read already; without a
// file descriptor (in-memory connections) no mark is set.
func newLowConn(conn *stranger, secure bool, first []byte) *lowConn {
	c := &lowConn{Conn: conn, mark: 1, secure: secure, buf: make([]byte, 4<<10)}
	if s, ok := conn.Conn.(syscall.Conn); ok {
		c.sys, _ = s.SyscallConn()
	}
	c.w = copy(c.buf, first)
	return c
}

// widen prepares for a stream, once the connection is known to be a link.
func (c *lowConn) widen() {
	if c.secure {
		buf := make([]byte, ioChunk)
		c.w = copy(buf, c.buf[c.r:c.w])
		c.r, c.buf = 0, buf
	}
}

func (c *lowConn) expect(n int) {
	if !c.secure {
		c.due = n
		return
	}
	// What is buffered belongs to this frame: tls.Conn has taken exactly the
	// record with its header.
	c.due = n + (n+tlsRecord-1)/tlsRecord*tlsOverhead - (c.w - c.r)
}

func (c *lowConn) Read(p []byte) (int, error) {
	if !c.secure {
		if c.r < c.w {
			n := copy(p, c.buf[c.r:c.w])
			c.r += n
			return n, nil
		}
		c.setMark(min(c.due, len(p)))
		n, err := c.Conn.Read(p)
		c.due -= n
		return n, err
	}
	limit := c.record
	if limit == 0 {
		for c.w-c.r < tlsHeader {
			if err := c.fill(); err != nil {
				return 0, err
			}
		}
		limit = tlsHeader
		c.record = tlsHeader + int(binary.BigEndian.Uint16(c.buf[c.r+3:]))
	} else if c.r == c.w {
		if err := c.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.buf[c.r:min(c.w, c.r+limit)])
	c.r += n
	c.record -= n
	return n, nil
}

// fill reads more behind what is buffered.
func (c *lowConn) fill() error {
	c.w = copy(c.buf, c.buf[c.r:c.w])
	c.r = 0
	c.setMark(c.due)
	n, err := c.Conn.Read(c.buf[c.w:])
	c.w += n
	c.due -= n
	if n > 0 {
		return nil
	}
	return err
}

func (c *lowConn) setMark(n int) {
	n = max(1, min(n, maxLow))
	if c.sys == nil || n == c.mark {
		return
	}
	c.mark = n
	c.sys.Control(func(fd uintptr) {
		unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVLOWAT, n)
	})
}
