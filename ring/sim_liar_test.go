package ring

import (
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/simcheck"
	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/opencontainers/go-digest"
)

var simLiars = flag.Int("sim.liars", 0, "simulate so many seeds with one or two liars; 0: 100, 30 with the race detector or -short")

// traits are what a liar may do wherever an honest node decides something: each line is one decision, and a liar has
// at most one trait of it. PROTOCOL.md section 9 says what becomes of it.
var traits = [][]string{
	{"waits-in", "waits-out", "waits-disk", "waits-cpu", "waits-limit", "waits-nothing", "waits-anything"},
	{"received-none", "received-one-more", "received-all", "received-back-and-forth"},
	{"links-none", "links-invented", "links-idle", "links-busy", "links-held", "links-fast"},
	{"no-need", "needs-nothing", "needs-all"},
	{"no-report"},
	{"no-up", "up-always", "down-at-once"},
	{"no-down", "no-done", "done-early"},
	{"falls-back", "falls-back-often"},
	{"no-verified", "verified-early", "verified-wrong"},
	{"committed-wrong", "no-committed"},
	{"closes-control"},
	{"reads-nothing"},
	{"sends-nothing"},
	{"changes-bytes"},
}

// liars makes the scenario of a seed in which nothing is wrong but one or two nodes, which lie.
func liars(seed uint64) simCase {
	s := generate(seed)
	r := rand.New(rand.NewPCG(seed, 0x6c69617273))
	s.Faults, s.Source, s.Blind, s.Wait, s.Direct = nil, "", nil, 0, 0
	if s.Nodes > 16 {
		s.Nodes = 4
		s.Held, s.Parts = nil, nil
	}
	s.Nodes = max(s.Nodes, 2)
	first := 1 + r.IntN(s.Nodes)
	for k := range 1 + r.IntN(2) {
		who := first
		if k == 1 {
			if who = 1 + r.IntN(s.Nodes); who == first {
				break
			}
		}
		var how []string
		for _, one := range traits {
			if r.IntN(5) == 0 {
				how = append(how, one[r.IntN(len(one))])
			}
		}
		if len(how) == 0 {
			one := traits[r.IntN(len(traits))]
			how = []string{one[r.IntN(len(one))]}
		}
		s.Faults = append(s.Faults, fault{What: simcheck.Liar, Node: who, How: strings.Join(how, " "), Rate: r.Int64N(512 << 10)})
	}
	return s
}

// TestSimLiars has one or two nodes lie, by seed, at every point at which a node decides something.
func TestSimLiars(t *testing.T) {
	if *simSeed != 0 {
		simulate(t, liars(*simSeed))
		return
	}
	seeds := *simLiars
	switch {
	case seeds != 0:
	case raceDetector, testing.Short():
		seeds = 30
	default:
		seeds = 100
	}
	// These had no end: one who has nothing left to get claimed another byte with each report.
	for _, seed := range []uint64{168, 437, 471} {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) { simulate(t, liars(seed)) })
	}
	simulateAll(t, seeds, liars)
}

// liarNode is what a lying node does, over all its connections. The node behind it is an honest one.
type liarNode struct {
	how  string
	from int64 // the byte of a link from which on it does not read, or not send
	all  int64 // what the source has

	mu       sync.Mutex
	rand     *rand.Rand
	said     int64 // reports
	messages int
	feed     *wire.Need // the last one
	falls    int
	digests  []string
}

func newLiar(s *sim, f fault) *liarNode {
	l := &liarNode{how: " " + f.How + " ", from: f.Rate, rand: rand.New(rand.NewPCG(s.sc.Seed, uint64(f.Node)))}
	for _, b := range s.blobs {
		l.all += int64(len(b.data))
		l.digests = append(l.digests, b.sum.String())
	}
	return l
}

func (l *liarNode) is(trait string) bool { return strings.Contains(l.how, " "+trait+" ") }

// says is what the node says instead of a message.
func (l *liarNode) says(m wire.Message) []wire.Message {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.messages++
	switch m := m.(type) {
	case *wire.Report:
		return l.reports(m)
	case *wire.Need:
		l.feed = m
		switch {
		case l.is("no-need"):
			return nil
		case l.is("needs-nothing"):
			m.Needs = [][2]int64{}
		case l.is("needs-all"):
			for i := range m.Needs {
				m.Needs[i][1] = 0
			}
		}
		if l.is("done-early") {
			return []wire.Message{m, &wire.Link{Link: m.Link, Generation: m.Generation, State: wire.LinkDone}}
		}
	case *wire.Link:
		switch {
		case m.State == wire.LinkUp && l.is("no-up"), m.State == wire.LinkDown && l.is("no-down"), m.State == wire.LinkDone && l.is("no-done"):
			return nil
		case m.State == wire.LinkUp && l.is("up-always"):
			return []wire.Message{m, m, m}
		case m.State == wire.LinkUp && l.is("down-at-once"):
			return []wire.Message{&wire.Link{Link: m.Link, Generation: m.Generation, State: wire.LinkDown, Code: wire.CodeNetwork, Reason: "no route to host"}}
		}
	case *wire.Verified:
		switch {
		case l.is("no-verified"):
			return nil
		case l.is("verified-wrong"):
			m.Digests[0] = digest.FromString("junk").String()
		}
	case *wire.Committed:
		switch {
		case l.is("no-committed"):
			return nil
		case l.is("committed-wrong"):
			m.Digest = digest.FromString("junk").String()
		}
	}
	return []wire.Message{m}
}

// reports is what it says of how far it is, once a second.
func (l *liarNode) reports(m *wire.Report) (all []wire.Message) {
	l.said++
	wait := []wire.Wait{wire.WaitIn, wire.WaitOut, wire.WaitDisk, wire.WaitCPU, wire.WaitLimit, wire.WaitUnknown}
	for i, trait := range traits[0][:len(wait)] {
		if l.is(trait) {
			m.Wait = wait[i]
		}
	}
	if l.is("waits-anything") {
		m.Wait = wait[l.rand.IntN(len(wait))]
	}
	switch {
	case l.is("received-none"):
		m.Received, m.Marked, m.Durable = 0, 0, 0
	case l.is("received-one-more"):
		m.Received, m.Marked, m.Durable = l.said, 0, 0
	case l.is("received-all"):
		m.Received, m.Marked, m.Durable = l.all, l.all, l.all
	case l.is("received-back-and-forth"):
		m.Received = l.said % 2
	}
	for i := range m.Links {
		k := &m.Links[i]
		switch {
		case l.is("links-idle"):
			k.Idle = true
		case l.is("links-busy"):
			k.Idle = false
		case l.is("links-held"):
			k.Idle, k.Held = false, true
		case l.is("links-fast"):
			k.Idle, k.Rate = false, 1<<30
		}
	}
	switch {
	case l.is("links-none"):
		m.Links = []wire.Sending{}
	case l.is("links-invented"):
		m.Links = []wire.Sending{{Link: 4711, Rate: 1 << 20}}
	}
	if l.is("up-always") {
		for id := range uint32(8) {
			all = append(all, &wire.Link{Link: id, Generation: 1 + id%3, State: wire.LinkUp})
		}
	}
	if l.is("verified-early") && l.said == 2 {
		all = append(all, &wire.Verified{Digests: l.digests})
	}
	most := 0
	if l.is("falls-back") {
		most = 1
	} else if l.is("falls-back-often") {
		most = 100
	}
	if l.feed != nil && l.falls < most && l.said%2 == 0 {
		l.falls++
		all = append(all, &wire.Fallback{Link: l.feed.Link, Generation: l.feed.Generation, Offset: simMark})
	}
	if l.is("no-report") {
		return all
	}
	return append(all, m)
}

// closes says whether it closes the control connection now.
func (l *liarNode) closes() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.is("closes-control") && l.messages > 5 && l.messages%3 == 0
}

// longest is how long a run may take. A liar may say that it has everything, or nothing of its end, for 10 minutes.
func (s *sim) longest() time.Duration {
	for _, f := range s.sc.Faults {
		if f.What == simcheck.Liar {
			return 40 * time.Minute
		}
	}
	return 10 * time.Minute
}

// liarListener makes what a node accepts the connections of a liar.
type liarListener struct {
	net.Listener
	liar *liarNode
}

func (l *liarListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &liarConn{Conn: c, liar: l.liar, closed: make(chan struct{})}, nil
}

// liarConn is one that a liar accepted: a control connection, on which it says other things than the node, or a link
// that feeds it, which it stops reading.
type liarConn struct {
	net.Conn
	liar   *liarNode
	kind   byte
	began  bool
	bytes  int64
	writes int
	once   sync.Once
	closed chan struct{}
}

func (c *liarConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

func (c *liarConn) Read(b []byte) (int, error) {
	if c.began && c.kind == wire.Preamble[0] && c.liar.is("reads-nothing") && c.bytes > c.liar.from {
		<-c.closed
		return 0, net.ErrClosed
	}
	n, err := c.Conn.Read(b)
	if n > 0 && !c.began {
		c.began, c.kind = true, b[0]
	}
	c.bytes += int64(n)
	return n, err
}

func (c *liarConn) Write(b []byte) (int, error) {
	c.writes++
	if c.kind != 0 || c.writes == 1 { // the first is the WELCOME
		return c.Conn.Write(b)
	}
	var out []byte
	for rest := b; len(rest) > 4; {
		n := 4 + int(binary.BigEndian.Uint32(rest))
		m, err := wire.Decode(rest[4:n])
		rest = rest[n:]
		if err != nil {
			return 0, err
		}
		for _, m := range c.liar.says(m) {
			said, err := wire.Encode(m)
			if err != nil {
				return 0, err
			}
			out = append(out, said...)
		}
	}
	if c.liar.closes() {
		c.Close()
		return 0, net.ErrClosed
	}
	if _, err := c.Conn.Write(out); err != nil {
		return 0, err
	}
	return len(b), nil
}

// deaf is a link that a liar feeds, over which it sends nothing more.
type deaf struct {
	net.Conn
	liar *liarNode
	sent int64
}

func (d *deaf) Write(b []byte) (int, error) {
	if d.sent += int64(len(b)); d.sent > d.liar.from/2 && len(b) > wire.LinkHelloSize {
		return len(b), nil
	}
	return d.Conn.Write(b)
}
