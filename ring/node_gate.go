package ring

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Limits of what a peer gets before it has shown a certificate or a link's proof.
const (
	gateSlots   = 256      // connections not yet authenticated
	gateKept    = 64       // of addresses that are expected, besides
	gatePerAddr = 32       // of one address
	gateSenders = 64       // addresses from which a sender has authenticated are expected, the last so many
	gateBytes   = 16 << 10 // read from one connection
)

// gate bounds the connections that are not yet authenticated, so that a port scan or a flood takes little memory, and
// locks nobody out. A new connection always gets in. If there is no place for it, the oldest one has to go: who has a key shows
// it at once, and those who have none wait for the end of their time.
//
// Addresses of a running plan, and those from which senders came before, have places of their own. All addresses of an
// IPv6 network of 64 bits count as one, because a single machine may have all of them.
type gate struct {
	mu       sync.Mutex
	visitors []*visitor           // oldest first
	known    map[netip.Prefix]int // by running transfers
	senders  []netip.Prefix       // the newest is last
}

// visitor is a connection in the gate.
type visitor struct {
	conn net.Conn
	from netip.Prefix
	kept bool
}

// enter lets a connection in, and closes the one whose place it takes. The result gives the place back.
func (g *gate) enter(conn net.Conn) (leave func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	v := &visitor{conn: conn, from: networkOf(addrOf(conn.RemoteAddr()))}
	v.kept = g.known[v.from] > 0 || slices.Contains(g.senders, v.from)
	slots := gateSlots
	if v.kept {
		slots = gateKept
	}
	g.bound(gatePerAddr, func(o *visitor) bool { return o.from == v.from })
	g.bound(slots, func(o *visitor) bool { return o.kept == v.kept })
	g.visitors = append(g.visitors, v)
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.visitors = slices.DeleteFunc(g.visitors, func(o *visitor) bool { return o == v })
	}
}

// bound makes room for one more of the visitors that which tells, if there are as many as may be.
func (g *gate) bound(limit int, which func(*visitor) bool) {
	count := 0
	for _, v := range g.visitors {
		if which(v) {
			count++
		}
	}
	if count < limit {
		return
	}
	oldest := slices.IndexFunc(g.visitors, which)
	g.visitors[oldest].conn.Close()
	g.visitors = slices.Delete(g.visitors, oldest, oldest+1)
}

// expect keeps places for an address until the result is called.
func (g *gate) expect(ip netip.Addr) (forget func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.known == nil {
		g.known = map[netip.Prefix]int{}
	}
	from := networkOf(ip)
	g.known[from]++
	return sync.OnceFunc(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.known[from]--; g.known[from] == 0 {
			delete(g.known, from)
		}
	})
}

// remember notes that a sender has authenticated from an address.
func (g *gate) remember(a net.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	from := networkOf(addrOf(a))
	g.senders = append(slices.DeleteFunc(g.senders, func(o netip.Prefix) bool { return o == from }), from)
	g.senders = g.senders[max(0, len(g.senders)-gateSenders):]
}

func addrOf(a net.Addr) netip.Addr {
	ap, _ := netip.ParseAddrPort(a.String())
	return ap.Addr().Unmap()
}

// networkOf is what counts as one address.
func networkOf(ip netip.Addr) netip.Prefix {
	bits := ip.BitLen()
	if ip.Is6() {
		bits = 64
	}
	p, _ := ip.Prefix(bits)
	return p
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
