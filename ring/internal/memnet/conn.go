package memnet

import (
	"errors"
	"net"
	"time"
)

// Conn is one end of a connection.
type Conn struct {
	net           *Net
	host          *Host
	in, out       *pipe
	local, remote addr
	peer          *Conn
	listener      *Listener // set at the accepting end
	frozen        bool      // set at the dialling end by Stall
}

// Read reads what has arrived.
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.in.read(p)
	return n, wrap("read", err)
}

// Write returns once everything is in the connection's buffer.
func (c *Conn) Write(p []byte) (int, error) {
	n, err := c.out.write(p)
	return n, wrap("write", err)
}

func wrap(op string, err error) error {
	if _, plain := err.(errno); plain {
		return opError(op, err.(errno).error)
	}
	return err
}

// errno marks an error that a socket would return, which io.EOF is not.
type errno struct{ error }

// Close ends both directions. As with TCP, the peer reads what was written and then the end.
// If there is something that the peer wrote and we have not read, it gets a reset.
func (c *Conn) Close() error {
	if !c.close(c.in.unread()) {
		return opError("close", net.ErrClosed)
	}
	return nil
}

// reset ends the connection the way the death of its process does.
func (c *Conn) reset() { c.close(true) }

func (c *Conn) close(reset bool) bool {
	first := c.out.finish(reset)
	c.in.abandon()
	if first {
		c.net.forget(c)
	}
	return first
}

// forget drops a connection that neither end uses any more.
func (n *Net) forget(c *Conn) {
	if !c.peer.out.closed() {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, e := range []*Conn{c, c.peer} {
		delete(n.conns, e)
		if e.listener != nil {
			delete(e.listener.accepted, e)
		}
	}
}

// LocalAddr and RemoteAddr return numeric addresses.
func (c *Conn) LocalAddr() net.Addr  { return c.local }
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline sets both deadlines.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline ends reads at t. The zero time is no deadline.
func (c *Conn) SetReadDeadline(t time.Time) error { c.in.deadline(&c.in.readable, t); return nil }

// SetWriteDeadline ends writes at t. The zero time is no deadline.
func (c *Conn) SetWriteDeadline(t time.Time) error { c.out.deadline(&c.out.writable, t); return nil }
