package memnet

import (
	"sync"
	"time"
)

// Way is the direction from one host to another, for all connections between them.
// Its fields are guarded by the net's mutex; pipes have copies, which update makes.
type Way struct {
	from, to *Host
	cut      bool
	rate     int64 // bytes per second; 0: no limit
	latency  time.Duration
	rules    *rules
}

// Damage is done to the bytes of connections on a way. Without Drop and Repeat it flips a bit.
type Damage struct {
	// First limits it to connections whose first byte this is. 0 is all connections.
	First byte
	// Offset is the first byte of a connection that is damaged.
	Offset int64
	// Every is after how many bytes it is done again. 0 is once in a connection.
	Every int64
	// Times is how often it is done over all connections. 0 is always.
	Times int
	// Drop is how many bytes are left out.
	Drop int
	// Repeat is how many bytes come twice.
	Repeat int
}

type rules struct {
	mu  sync.Mutex
	all []*Damage
}

// way returns the way between two hosts, and makes it at its first use. n.mu is held.
func (n *Net) way(from, to *Host) *Way {
	k := [2]*Host{from, to}
	w := n.ways[k]
	if w == nil {
		w = &Way{from: from, to: to, rules: &rules{}}
		n.ways[k] = w
	}
	return w
}

func (w *Way) blocked() bool { return w.cut || w.from.frozen || w.to.frozen }
func (w *Way) timed() bool   { return w.rate > 0 || w.latency > 0 }

// update makes a change and lets connections know of it. It takes n.mu.
func (n *Net) update(change func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.host("elsewhere") // the maps are there
	change()
	for c := range n.conns {
		c.paths()
	}
	close(n.changed)
	n.changed = make(chan struct{})
}

// paths tells both directions of a dialling end what the net does to them. The net's mutex is held.
func (c *Conn) paths() {
	out, back := c.net.way(c.host, c.peer.host), c.net.way(c.peer.host, c.host)
	forth, home := out.blocked() || c.frozen, back.blocked() || c.frozen
	c.out.path(forth, home, *out)
	c.in.path(home, forth, *back)
}

// Kill ends the processes of a host: it closes their ports and resets their connections.
// Listen brings the host up again.
func (n *Net) Kill(host string) {
	n.mu.Lock()
	h := n.host(host)
	h.dead = true
	var ports []*Listener
	for _, l := range h.listeners {
		ports = append(ports, l)
		l.close()
	}
	ends := n.ends(func(c *Conn) bool { return c.host == h })
	n.mu.Unlock()
	for _, l := range ports {
		l.drain()
	}
	for _, c := range ends {
		c.reset()
	}
}

// ends lists ends of connections. n.mu is held.
func (n *Net) ends(which func(*Conn) bool) (all []*Conn) {
	for c := range n.conns {
		for _, e := range []*Conn{c, c.peer} {
			if which(e) {
				all = append(all, e)
			}
		}
	}
	return all
}

// Freeze keeps a host from sending and receiving. Its connections stay.
func (n *Net) Freeze(host string) { n.update(func() { n.host(host).frozen = true }) }

// Thaw ends Freeze.
func (n *Net) Thaw(host string) { n.update(func() { n.host(host).frozen = false }) }

// Cut loses what travels from one host to another, as a dropped route does. Connections
// stay. The other direction gets no acknowledgements.
func (n *Net) Cut(from, to string) {
	n.update(func() { n.way(n.host(from), n.host(to)).cut = true })
}

// Heal ends Cut. What was held up arrives, because TCP sends it again.
func (n *Net) Heal(from, to string) {
	n.update(func() { n.way(n.host(from), n.host(to)).cut = false })
}

// Shape gives a direction a rate in bytes per second, of which 0 is no limit, and a latency.
func (n *Net) Shape(from, to string, rate int64, latency time.Duration) {
	n.update(func() {
		w := n.way(n.host(from), n.host(to))
		w.rate, w.latency = rate, latency
	})
}

// Damage damages what travels on connections, on those that are open and those that are made later.
func (n *Net) Damage(from, to string, d Damage) {
	n.mu.Lock()
	defer n.mu.Unlock()
	r := n.way(n.host(from), n.host(to)).rules
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, &d)
}

// between lists the dialling ends of connections between two hosts whose first byte was first, or of
// all for 0. n.mu is held.
func (n *Net) between(from, to string, first byte) (all []*Conn) {
	a, b := n.host(from), n.host(to)
	for c := range n.conns {
		if c.host == a && c.peer.host == b && (first == 0 || c.out.begins(first)) {
			all = append(all, c)
		}
	}
	return all
}

// Reset breaks the open connections that one host made to another, and returns how many. It breaks
// those whose first byte was first, or all for 0.
func (n *Net) Reset(from, to string, first byte) int {
	n.mu.Lock()
	all := n.between(from, to, first)
	n.mu.Unlock()
	for _, c := range all {
		c.out.fail()
		c.in.fail()
	}
	return len(all)
}

// Stall freezes the connections that Reset would break, for good, and no others.
func (n *Net) Stall(from, to string, first byte) (count int) {
	n.update(func() {
		for _, c := range n.between(from, to, first) {
			c.frozen = true
			count++
		}
	})
	return count
}

// Unstall lets all connections between two hosts go on.
func (n *Net) Unstall(from, to string) {
	n.update(func() {
		for _, c := range n.between(from, to, 0) {
			c.frozen = false
		}
	})
}

// damage returns what arrives of b, which begins at byte off of its connection.
func (w *Way) damage(first byte, off int64, b []byte) []byte {
	w.rules.mu.Lock()
	defer w.rules.mu.Unlock()
	for _, d := range w.rules.all {
		if d.First != 0 && d.First != first || d.Times < 0 {
			continue
		}
		at := d.Offset
		if d.Every > 0 && off > at {
			at += (off - at + d.Every - 1) / d.Every * d.Every
		}
		if at < off || at >= off+int64(len(b)) {
			continue
		}
		if d.Times > 0 {
			if d.Times--; d.Times == 0 {
				d.Times = -1
			}
		}
		i := int(at - off)
		out := append(make([]byte, 0, len(b)+d.Repeat), b[:i]...)
		switch {
		case d.Drop > 0:
			out = append(out, b[min(len(b), i+d.Drop):]...)
		case d.Repeat > 0:
			out = append(out, b[i:min(len(b), i+d.Repeat)]...)
			out = append(out, b[i:]...)
		default:
			out = append(out, b[i:]...)
			for out[i] ^= 0x10; d.Every > 0 && d.Times == 0 && i+int(d.Every) < len(out); out[i] ^= 0x10 {
				i += int(d.Every)
			}
		}
		b = out
	}
	return b
}

// begins reports whether the first byte written was b.
func (p *pipe) begins(b byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taken > 0 && p.first == b
}

// fail breaks a direction for both its ends.
func (p *pipe) fail() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.broken, p.lost = true, true
	p.promote()
	p.readable.Broadcast()
	p.writable.Broadcast()
}
