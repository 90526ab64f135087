// Package memnet is a network in memory, for tests with testing/synctest: its
// connections have no file descriptors, so that goroutines which wait for them
// are durably blocked and fake time passes.
package memnet

import (
	"context"
	"fmt"
	"net"
	"sync"
	"syscall"
)

// Net is a set of hosts that can reach each other. The zero value has none.
type Net struct {
	mu    sync.Mutex
	hosts map[string]*Listener
}

// Listen makes a host, by its "host:port".
func (n *Net) Listen(addr string) *Listener {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.hosts == nil {
		n.hosts = map[string]*Listener{}
	}
	l := &Listener{net: n, addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}
	n.hosts[addr] = l
	return l
}

// Dial connects to a host; nobody listening is refused, as by TCP.
func (n *Net) Dial(ctx context.Context, addr string) (net.Conn, error) {
	n.mu.Lock()
	l := n.hosts[addr]
	n.mu.Unlock()
	if l == nil {
		return nil, &net.OpError{Op: "dial", Net: "mem", Err: syscall.ECONNREFUSED}
	}
	near, far := net.Pipe()
	select {
	case l.conns <- l.keep(far):
		return near, nil
	case <-l.done:
		return nil, &net.OpError{Op: "dial", Net: "mem", Err: syscall.ECONNREFUSED}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Listener is a host.
type Listener struct {
	net   *Net
	addr  string
	conns chan net.Conn
	done  chan struct{}

	mu       sync.Mutex
	accepted []net.Conn
	once     sync.Once
}

// Accept waits for the next connection.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, fmt.Errorf("memnet: %w", net.ErrClosed)
	}
}

// Close takes the host off the net; its connections stay.
func (l *Listener) Close() error {
	l.once.Do(func() {
		l.net.mu.Lock()
		defer l.net.mu.Unlock()
		delete(l.net.hosts, l.addr)
		close(l.done)
	})
	return nil
}

// Cut breaks every connection of the host, the way a killed process does.
func (l *Listener) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.accepted {
		c.Close()
	}
	l.accepted = nil
}

// Addr is the host's address.
func (l *Listener) Addr() net.Addr { return addr(l.addr) }

type addr string

func (a addr) Network() string { return "mem" }
func (a addr) String() string  { return string(a) }

// conn names the far end as a host of its own, which gates count by.
type conn struct {
	net.Conn
	remote addr
}

func (c conn) RemoteAddr() net.Addr { return c.remote }

func (l *Listener) keep(c net.Conn) net.Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.accepted = append(l.accepted, c)
	return conn{c, "192.0.2.1:1"}
}
