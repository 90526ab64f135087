package relay

import (
	"encoding/binary"
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxLow keeps the mark below half of a receive buffer that has not grown yet, beyond which the kernel would
// have to grow it for us. With 1 MiB there were fewer wakes, and more processor time went into copies: more
// bytes are under way then than caches hold.
const maxLow = 256 << 10

// LowConn is a TCP connection that tells the kernel how many bytes its reader
// waits for (SO_RCVLOWAT), so that it is woken once for many segments and not for
// each. The mark never exceeds what is sure to come, or the end of the
// connection: a reader with a higher one sleeps for ever at the end of the data.
//
// Plain, it reads straight through. Below TLS it has a large buffer, since
// tls.Conn asks for little at a time, and counts raw bytes: a frame is one record
// with the header and then records of 16 KiB, each 22 bytes longer than what it
// carries. It hands tls.Conn one record at a time, because tls.Conn would else
// take bytes ahead that could not be counted.
type LowConn struct {
	net.Conn
	sys  syscall.RawConn // nil until it is a link: no mark is set
	mark int             // as the kernel has it

	meter *activity // of who reads a link: it waits while nothing comes, not while it decrypts or copies

	due    int // bytes that are sure to come, raw under TLS
	secure bool
	buf    []byte
	r, w   int
	record int // bytes of the current TLS record not yet handed on

	into [2][]byte // arguments and results of try
	n    int
	err  error
	try  func(fd uintptr) bool
}

const (
	tlsHeader   = 5
	tlsOverhead = 22 // 5 header, 1 inner type, 16 tag
	tlsRecord   = 16 << 10
)

// NewLowConn wraps a connection whose first bytes were read already.
func NewLowConn(conn net.Conn, secure bool, first []byte) *LowConn {
	c := &LowConn{Conn: conn, mark: 1, secure: secure, buf: make([]byte, 4<<10)}
	c.w = copy(c.buf, first)
	return c
}

// widen prepares for a stream, once the connection is known to be a link, and reads on from raw, which is
// what is below it. In-memory connections have no file descriptor to set a mark on.
func (c *LowConn) widen(raw net.Conn) {
	if c.secure {
		buf := make([]byte, ioChunk)
		c.w = copy(buf, c.buf[c.r:c.w])
		c.r, c.buf = 0, buf
	}
	if s, ok := raw.(syscall.Conn); ok {
		c.sys, _ = s.SyscallConn()
		c.try = c.tryRead
	}
}

// expectFrame says that a header of head bytes comes, of which have were read, and at least n bytes of payload behind it,
// in one frame or several; with 0, that nothing is sure.
func (c *LowConn) expectFrame(head, n, have int) {
	c.due = 0
	if n > 0 {
		c.due = c.raw(head) + c.raw(n) - (c.w - c.r) - have
	}
}

// expect says that n payload bytes belong to the current frame. What is buffered
// belongs to it, too: tls.Conn has taken exactly the record with its header.
func (c *LowConn) expect(n int) { c.due = c.raw(n) - (c.w - c.r) }

// raw is how many bytes on the connection carry n, at least.
func (c *LowConn) raw(n int) int {
	if !c.secure {
		return n
	}
	return n + (n+tlsRecord-1)/tlsRecord*tlsOverhead
}

func (c *LowConn) Read(p []byte) (int, error) {
	if !c.secure {
		if c.r < c.w {
			n := copy(p, c.buf[c.r:c.w])
			c.r += n
			return n, nil
		}
		return c.receive(p, nil)
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

// readAlso is Read of a plain link; what comes behind a full p goes into more.
func (c *LowConn) readAlso(p, more []byte) (int, error) {
	if c.r < c.w {
		return c.Read(p)
	}
	return c.receive(p, more)
}

// fill reads more behind what is buffered.
func (c *LowConn) fill() error {
	c.w = copy(c.buf, c.buf[c.r:c.w])
	c.r = 0
	n, err := c.receive(c.buf[c.w:], nil)
	c.w += n
	if n > 0 {
		return nil
	}
	return err
}

// receive reads, once there is what is due, into p, and if p gets full into more, which may be nil.
func (c *LowConn) receive(p, more []byte) (int, error) {
	if c.sys == nil {
		c.meter.is(waitIn)
		defer c.meter.is(waitCPU)
		return c.Conn.Read(p)
	}
	c.into = [2][]byte{p, more}
	err := c.sys.Read(c.try)
	c.meter.is(waitCPU)
	if err != nil {
		return 0, err
	}
	c.due -= c.n
	return c.n, c.err
}

// tryRead reads what is there. Only when nothing is does it set the mark, and has
// the runtime wait: on a busy link the mark stays as it is.
func (c *LowConn) tryRead(fd uintptr) bool {
	for {
		if len(c.into[1]) > 0 {
			c.n, c.err = unix.Readv(int(fd), c.into[:])
		} else {
			c.n, c.err = unix.Read(int(fd), c.into[0])
		}
		switch {
		case c.err == unix.EINTR:
			continue
		case c.err == unix.EAGAIN:
			c.meter.is(waitIn)
			if n := max(1, min(c.due, maxLow)); n != c.mark {
				c.mark = n
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVLOWAT, n)
			}
			return false
		case c.err != nil:
			c.n, c.err = 0, os.NewSyscallError("read", c.err)
		case c.n == 0 && len(c.into[0]) > 0:
			c.err = io.EOF
		}
		return true
	}
}
