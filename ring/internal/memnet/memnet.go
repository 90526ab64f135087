// Package memnet is a network in memory, for tests with testing/synctest: its
// connections have no file descriptors, so that goroutines which wait for them
// are durably blocked and fake time passes. Hosts can be killed and frozen, and
// the way from one to another cut, slowed and damaged.
package memnet

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// DefaultBuffer is how many bytes a direction of a connection holds, as the buffers of
// a socket do, unless Net.Buffer says otherwise.
const DefaultBuffer = 128 << 10

// backlog is how many connections wait to be accepted.
const backlog = 128

// Net is a set of hosts that can reach each other. The zero value has none.
type Net struct {
	// Buffer is how many bytes a direction of a connection holds. 0 is DefaultBuffer.
	Buffer int

	mu      sync.Mutex
	hosts   map[string]*Host
	conns   map[*Conn]bool // the dialling ends
	ways    map[[2]*Host]*Way
	changed chan struct{} // closed when a way opens
}

// Host is a machine by its name.
type Host struct {
	net       *Net
	name      string
	ip        string
	ports     int
	frozen    bool
	dead      bool
	listeners map[string]*Listener
}

// Host returns the host of that name. It makes the host at its first use.
func (n *Net) Host(name string) *Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.host(name)
}

func (n *Net) host(name string) *Host {
	if n.hosts == nil {
		n.hosts, n.conns, n.ways = map[string]*Host{}, map[*Conn]bool{}, map[[2]*Host]*Way{}
		n.changed = make(chan struct{})
	}
	h := n.hosts[name]
	if h == nil {
		i := len(n.hosts) + 1
		// The gates of nodes count connections by address, so that each host has an address of its own.
		h = &Host{net: n, name: name, ip: fmt.Sprintf("10.0.%d.%d", i>>8, i&255), listeners: map[string]*Listener{}}
		n.hosts[name] = h
	}
	return h
}

// hostOf returns the host part of "host:port".
func hostOf(addr string) string {
	if i := strings.LastIndexByte(addr, ':'); i >= 0 {
		return addr[:i]
	}
	return addr
}

// Listen opens a "host:port". A killed host is up again after it.
func (n *Net) Listen(addr string) *Listener {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.host(hostOf(addr))
	h.dead = false
	l := &Listener{host: h, addr: addr, conns: make(chan *Conn, backlog), done: make(chan struct{}), accepted: map[*Conn]bool{}}
	h.listeners[addr] = l
	return l
}

// Dial connects to a listener from a host of its own, "elsewhere".
func (n *Net) Dial(ctx context.Context, addr string) (net.Conn, error) {
	return n.Host("elsewhere").Dial(ctx, addr)
}

// Dial connects to a listener. Where nobody listens it is refused, as with TCP. Where the
// way is cut it waits.
func (h *Host) Dial(ctx context.Context, addr string) (net.Conn, error) {
	n := h.net
	for {
		n.mu.Lock()
		to := n.host(hostOf(addr))
		l := to.listeners[addr]
		out, back := n.way(h, to), n.way(to, h)
		changed := n.changed
		switch {
		case h.dead:
			n.mu.Unlock()
			return nil, opError("dial", syscall.ENETUNREACH)
		case out.blocked() || back.blocked():
			n.mu.Unlock()
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				return nil, dialError(ctx)
			}
		}
		trip := out.latency + back.latency
		n.mu.Unlock()
		if trip > 0 {
			t := time.NewTimer(trip)
			select {
			case <-t.C:
			case <-ctx.Done():
				t.Stop()
				return nil, dialError(ctx)
			}
			n.mu.Lock()
			still := to.listeners[addr] == l && !h.dead
			n.mu.Unlock()
			if !still {
				l = nil
			}
		}
		if l == nil {
			return nil, opError("dial", syscall.ECONNREFUSED)
		}
		n.mu.Lock()
		if l.closed {
			n.mu.Unlock()
			return nil, opError("dial", syscall.ECONNREFUSED)
		}
		near := n.connect(h, l, out, back)
		n.mu.Unlock()
		select {
		case l.conns <- near.peer:
			select {
			case <-l.done: // Close may have drained the queue before this connection was in it
				l.drain()
			default:
			}
			return near, nil
		case <-l.done:
			near.peer.reset()
			return nil, opError("dial", syscall.ECONNREFUSED)
		case <-ctx.Done():
			near.reset()
			return nil, dialError(ctx)
		}
	}
}

// connect makes the two ends of a connection. n.mu is held.
func (n *Net) connect(from *Host, l *Listener, out, back *Way) *Conn {
	size := n.Buffer
	if size <= 0 {
		size = DefaultBuffer
	}
	from.ports++
	a, b := newPipe(size), newPipe(size)
	here := addr(fmt.Sprintf("%s:%d", from.ip, 1024+from.ports))
	there := addr(fmt.Sprintf("%s:%d", l.host.ip, 9998))
	near := &Conn{net: n, host: from, in: b, out: a, local: here, remote: there}
	far := &Conn{net: n, host: l.host, in: a, out: b, local: there, remote: here, listener: l, peer: near}
	near.peer = far
	near.paths()
	n.conns[near] = true
	l.accepted[far] = true
	return near
}

func opError(op string, err error) error { return &net.OpError{Op: op, Net: "mem", Err: err} }

func dialError(ctx context.Context) error {
	if context.Cause(ctx) == context.DeadlineExceeded {
		return opError("dial", os.ErrDeadlineExceeded)
	}
	return opError("dial", context.Cause(ctx))
}

// Listener is an open port.
type Listener struct {
	host     *Host
	addr     string
	conns    chan *Conn
	done     chan struct{}
	accepted map[*Conn]bool // guarded by the net's mutex, like closed
	closed   bool
}

// Accept waits for the next connection.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case <-l.done:
		return nil, opError("accept", net.ErrClosed)
	default:
	}
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, opError("accept", net.ErrClosed)
	}
}

// Close closes the port. Accepted connections stay.
func (l *Listener) Close() error {
	l.host.net.mu.Lock()
	l.close()
	l.host.net.mu.Unlock()
	l.drain()
	return nil
}

// drain resets the connections that were never accepted.
func (l *Listener) drain() {
	for {
		select {
		case c := <-l.conns:
			c.reset()
			continue
		default:
		}
		return
	}
}

func (l *Listener) close() {
	if l.closed {
		return
	}
	l.closed = true
	if l.host.listeners[l.addr] == l {
		delete(l.host.listeners, l.addr)
	}
	close(l.done)
}

// Cut breaks every connection made to this port, the way a killed process does.
func (l *Listener) Cut() {
	l.host.net.mu.Lock()
	var all []*Conn
	for c := range l.accepted {
		all = append(all, c)
	}
	l.host.net.mu.Unlock()
	for _, c := range all {
		c.reset()
	}
}

// Addr returns the address of the port.
func (l *Listener) Addr() net.Addr { return addr(l.addr) }

type addr string

func (a addr) Network() string { return "mem" }
func (a addr) String() string  { return string(a) }
