package ring

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Limits of what a peer gets before it has shown a certificate or a link's proof.
const (
	gateSlots   = 256      // connections not yet authenticated
	gatePerAddr = 32       // of them from one address
	gateKept    = 64       // more for addresses of a running plan
	gateBytes   = 16 << 10 // read from one connection
)

// gate counts connections that are not yet authenticated, so that a port scan or
// a flood takes no memory, and none of the places that a running plan needs.
type gate struct {
	mu    sync.Mutex
	total int
	kept  int
	addrs map[netip.Addr]int
	known map[netip.Addr]int // by running transfers
}

// enter returns what gives the slot back, or false when there is none.
func (g *gate) enter(a net.Addr) (leave func(), ok bool) {
	ip := addrOf(a)
	g.mu.Lock()
	defer g.mu.Unlock()
	counter := &g.total
	if g.total >= gateSlots || g.addrs[ip] >= gatePerAddr {
		if g.known[ip] == 0 || g.kept >= gateKept {
			return nil, false
		}
		counter = &g.kept
	}
	if g.addrs == nil {
		g.addrs = map[netip.Addr]int{}
	}
	*counter++
	g.addrs[ip]++
	return sync.OnceFunc(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		*counter--
		if g.addrs[ip]--; g.addrs[ip] == 0 {
			delete(g.addrs, ip)
		}
	}), true
}

// expect keeps slots for an address; the result forgets it.
func (g *gate) expect(ip netip.Addr) (forget func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.known == nil {
		g.known = map[netip.Addr]int{}
	}
	g.known[ip]++
	return sync.OnceFunc(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.known[ip]--; g.known[ip] == 0 {
			delete(g.known, ip)
		}
	})
}

func addrOf(a net.Addr) netip.Addr {
	ap, _ := netip.ParseAddrPort(a.String())
	return ap.Addr().Unmap()
}

// stranger is a connection whose peer is not yet authenticated: it can be read
// only so far.
type stranger struct {
	net.Conn
	left int // -1: no limit any more

	mu     sync.Mutex
	hushed bool
}

// hush ends reading for good; writing goes on.
func (c *stranger) hush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hushed = true
	c.Conn.SetReadDeadline(time.Now())
}

func (c *stranger) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hushed {
		t = time.Now()
	}
	return c.Conn.SetReadDeadline(t)
}

func (c *stranger) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.Conn.SetWriteDeadline(t)
}

var errTalkative = errors.New("too many bytes before authentication")

func (c *stranger) Read(p []byte) (int, error) {
	if c.left < 0 {
		return c.Conn.Read(p)
	}
	if c.left == 0 {
		return 0, errTalkative
	}
	n, err := c.Conn.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

// trust lifts the limit.
func (c *stranger) trust() { c.left = -1 }
