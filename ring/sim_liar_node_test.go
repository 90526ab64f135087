package ring

import (
	"encoding/binary"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// liarNode is what a lying node does, over all its connections. The node behind it is an honest one.
type liarNode struct {
	how  string
	from int64            // the byte of a link from which on it does not read, or not send
	all  int64            // what the source has
	mate func() *liarNode // the neighbour that it lies together with; it returns nil where there is none
	told atomic.Pointer[story]

	mu       sync.Mutex
	rand     *rand.Rand
	said     int64 // reports
	messages int
	feed     *wire.Need // the last one
	falls    int
	digests  []string
	blobs    []v1.Descriptor
}

// story is what a liar last said of the link that feeds it, for its mate to say the same.
type story struct {
	link     uint32
	received int64
	wait     wire.Wait
}

func newLiar(s *sim, f fault) *liarNode {
	l := &liarNode{how: " " + f.How + " ", from: f.Rate, rand: rand.New(rand.NewPCG(s.sc.Seed, uint64(f.Node)))}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.liars[f.Node] = l
	l.mate = func() *liarNode {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.liars[f.Peer]
	}
	for _, b := range s.blobs {
		l.all += int64(len(b.data))
		l.digests = append(l.digests, b.sum.String())
		l.blobs = append(l.blobs, b.desc)
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
		if l.claims("spares") {
			m.Leaves = l.sets("spares", m.Needs)
		}
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
	case *wire.Answer:
		if l.claims("answers") && m.Code == wire.CodeNone {
			m.Leaves = l.sets("answers", nil)
		}
	case *wire.Compared:
		return l.compared(m)
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
	l.reportsItself(m)
	l.reportsLinks(m)
	l.agrees(m)
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

// reportsItself is how far it says it is, and what it says it waits for.
func (l *liarNode) reportsItself(m *wire.Report) {
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
	case l.is("received-least"): // a little more than 16 KiB per second, which is received, then compared, then stored
		m.Received = l.said * 17 << 10
		m.Marked = max(0, m.Received-l.all)
		m.Durable = max(0, m.Marked-l.all)
	}
	if l.is("good-nothing") {
		m.Blob, m.Good = 0, 0
	}
}

// reportsLinks is what it says of the links that it feeds.
func (l *liarNode) reportsLinks(m *wire.Report) {
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
		switch {
		case l.is("acked-none"):
			k.Acked = 0
		case l.is("acked-little"):
			k.Acked = min(k.Acked, l.said*10<<10)
		case l.is("acked-all"):
			k.Acked = 1 << 50
		}
	}
	switch {
	case l.is("links-none"):
		m.Links = []wire.Sending{}
	case l.is("links-invented"):
		m.Links = []wire.Sending{{Link: 4711, Rate: 1 << 20}}
	}
}

// agrees has the report say of the link to the mate, which it may have or not, what the mate says of itself; and it keeps
// what the report says for the mate.
func (l *liarNode) agrees(m *wire.Report) {
	if l.feed != nil {
		l.told.Store(&story{l.feed.Link, m.Received, m.Wait})
	}
	mate := l.mate()
	if mate == nil {
		return
	}
	of := mate.told.Load()
	if of == nil {
		return
	}
	k := slices.IndexFunc(m.Links, func(k wire.Sending) bool { return k.Link == of.link })
	if k < 0 {
		k, m.Links = len(m.Links), append(m.Links, wire.Sending{Link: of.link})
	}
	s := &m.Links[k]
	s.Acked = max(s.Acked, of.received+of.received/8)
	s.Idle, s.Held = of.wait == wire.WaitIn, of.wait == wire.WaitOut || of.wait == wire.WaitUnknown
	s.Ended = s.Ended && s.Idle
}

// deaf says whether it reads no more of a link of which it has read so much. What opens the link it always reads.
func (l *liarNode) deaf(read int64) bool {
	opening := int64(len(wire.Preamble) + wire.LinkHelloSize)
	return l.is("reads-nothing") && read >= opening || l.is("stops-reading") && read >= max(l.from, opening)
}

// closes says whether it closes the control connection now.
func (l *liarNode) closes() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.is("closes-control") && l.messages > 5 && l.messages%3 == 0
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
	told   []byte // of a message that the liar read otherwise than it came
}

func (c *liarConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

func (c *liarConn) Read(b []byte) (int, error) {
	if c.began && c.kind == wire.Preamble[0] && c.liar.deaf(c.bytes) {
		<-c.closed
		return 0, net.ErrClosed
	}
	if c.began && c.kind == 0 && c.liar.claims("dials") {
		return c.readDials(b)
	}
	if !c.began {
		b = b[:min(len(b), 1)] // tells what it is
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

// mute is a link that a liar feeds, over which it sends nothing more.
type mute struct {
	net.Conn
	liar *liarNode
	sent int64
}

func (d *mute) Write(b []byte) (int, error) {
	if d.sent += int64(len(b)); d.sent > d.liar.from/2 && len(b) > wire.LinkHelloSize {
		return len(b), nil
	}
	return d.Conn.Write(b)
}
