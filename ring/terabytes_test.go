//go:build !race

package ring

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strconv"
	"testing"
	"time"
	"weak"

	"github.com/dolly-img/dolly-img/ring/internal/coordinator"
	"github.com/dolly-img/dolly-img/ring/internal/relay"
	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/dolly-img/dolly-img/ring/leaf"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// What a server needs for a disk of 2 TiB and a thousand nodes.
const (
	teraNodes  = 1000
	teraSize   = 2 << 40
	teraStep   = 8 << 30 // what the source gives in a second
	teraMemory = 128 << 20
	teraPart   = 128 // marks that are broadcast together
	teraLost   = 500 // this node begins anew in the middle
	teraBroken = 600 // and the connections of so many from this one on break then
	teraMany   = 100
)

// stillSource has one blob in leaves, and gives no byte of it.
type stillSource struct{ size int64 }

func (s stillSource) Blobs(context.Context) ([]v1.Descriptor, error) {
	return []v1.Descriptor{{MediaType: leaf.MediaType, Size: s.size}}, nil
}

func (s stillSource) Open(ctx context.Context, _ v1.Descriptor, _ int64) (io.ReadCloser, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// teraNode is a node that says what a node would say, and stores nothing.
type teraNode struct {
	number   int
	lag      int64 // how far it is behind the server
	claim    int64 // what it says to hold when it is offered the blob
	deaf     bool  // it does not read
	exact    bool  // it compares every sum
	feed     *wire.Feed
	feeds    map[uint32]bool // the links that it was told to feed
	accepted int64
	received int64
	marks    int64 // where the marks end that it was sent
	good     int64
	final    bool // it was sent the final mark
	ended    bool // everything is good, and it has said so
	told     int  // MARKS that it was sent
}

// tera drives a sender as its loop does, without a network: what it would send is taken out of the queues of its control
// connections.
type tera struct {
	*testing.T
	s     *sender
	work  context.Context
	nodes []*teraNode
	read  int64
	now   time.Duration
	// pages are the MARKS that nobody else was sent before.
	pages map[weak.Pointer[byte]]bool
	// events are what nodes said, and the server's own links.
	events   []any
	finished bool
}

func newTera(t *testing.T) *tera {
	cfg := Config{Source: stillSource{teraSize}, TLS: func(string) *tls.Config { return nil }, Plain: true, Retries: 1}
	for i := range teraNodes {
		cfg.Nodes = append(cfg.Nodes, Peer{Name: fmt.Sprintf("node%04d", i+1), Addrs: []string{fmt.Sprintf("10.0.%d.%d:9998", i>>8, i&255)}})
	}
	s, err := newSender(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.net.dial = func(ctx context.Context, _ string) (net.Conn, error) { return nil, errors.New("no network") }
	if err := s.prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	work, cancel := context.WithCancel(t.Context())
	s.stop = cancel
	t.Cleanup(func() {
		close(s.done)
		cancel()
		s.relay.Close(relay.ErrClosed)
		s.work.Wait()
		<-s.source
		s.relay.Release()
	})
	w := &tera{T: t, s: s, work: work, nodes: []*teraNode{nil}, pages: map[weak.Pointer[byte]]bool{}}
	for i := 1; i <= teraNodes; i++ {
		w.nodes = append(w.nodes, &teraNode{number: i, lag: int64(i) * leaf.Size, exact: i == teraLost || i == teraBroken+1, feeds: map[uint32]bool{}})
	}
	return w
}

// apply has the sender take events.
func (w *tera) apply(evs ...any) {
	for _, ev := range evs {
		finished, err := w.s.apply(w.work, ev)
		if err != nil {
			w.Fatal(err)
		}
		w.finished = w.finished || finished
		if r, ok := ev.(coordinator.EvReport); ok {
			w.s.sendMarks(r.Node)
		}
	}
}

// settle has nodes read and the sender hear what they say, until nobody has anything to say.
func (w *tera) settle() {
	for {
		for _, n := range w.nodes[1:] {
			if c := w.s.conns[n.number]; c != nil && !n.deaf && c.waiting > 0 {
				w.hear(n, c)
			}
		}
		if len(w.events) == 0 {
			return
		}
		evs := w.events
		w.events = nil
		w.apply(evs...)
	}
}

// noConn is the connection of a node that nobody reads or writes.
type noConn struct {
	net.Conn
	t *testing.T
}

func (c noConn) Close() error { c.t.Error("a node was hung up on"); return nil }

// connect gives a node a new control connection.
func (w *tera) connect(n *teraNode) {
	c := &control{conn: noConn{t: w.T}, memory: serverMemory(), version: wire.Version}
	c.more.L = &c.mu
	w.s.conns[n.number] = c
}

// welcome has a node come into the transfer, as the process of that generation.
func (w *tera) welcome(n *teraNode, generation byte) {
	w.connect(n)
	w.apply(coordinator.EvWelcome{Node: n.number, Instance: teraInstance(n, generation), State: wire.StateNew, Version: wire.Version})
}

func teraInstance(n *teraNode, generation byte) wire.ID {
	return wire.ID{generation, byte(n.number >> 8), byte(n.number)}
}

// second is what happens in a second: the server reads on, and everybody reports.
func (w *tera) second() {
	for until := min(w.read+teraStep, teraSize); w.read < until; {
		for range teraPart {
			if w.read < until {
				w.read += leaf.Size
				w.mark(false)
			}
		}
		if w.read == teraSize {
			w.mark(true)
		}
		w.s.broadcastMarks()
		w.settle()
	}
	links := map[uint32]bool{}
	for _, n := range w.nodes[1:] {
		for l := range n.feeds {
			links[l] = true
		}
	}
	var own wire.Report
	for _, n := range w.nodes[1:] {
		if n.feed != nil && !links[n.feed.Link] {
			w.apply(coordinator.EvLink{Link: n.feed.Link, Generation: n.feed.Generation, State: wire.LinkUp})
			own.Links = append(own.Links, wire.Sending{Link: n.feed.Link, Rate: teraStep, Acked: 1 << 50})
		}
	}
	w.apply(coordinator.EvReport{Report: own})
	for _, n := range w.nodes[1:] {
		if !n.deaf {
			w.report(n)
		}
	}
	w.settle()
	for range 4 {
		w.now += coordinator.TickEvery
		w.apply(coordinator.EvTick{Now: w.now})
	}
	w.settle()
}

func (w *tera) mark(final bool) {
	m := wire.Mark{Offset: w.read, Final: final}
	m.Sum = teraSum(m)
	w.s.mark(m)
}

// report has a node say how far it is.
func (w *tera) report(n *teraNode) {
	if n.ended || n.feed == nil {
		return
	}
	to := w.read - n.lag
	if w.read == teraSize {
		to = teraSize
	}
	if to > n.accepted {
		n.received += to - n.accepted
		n.accepted = to
	}
	n.good = min(n.accepted, n.marks)
	r := wire.Report{Received: n.received, Marked: n.good, Good: n.good}
	for l := range n.feeds {
		r.Links = append(r.Links, wire.Sending{Link: l, Rate: teraStep, Acked: 1 << 50})
	}
	if n.final && n.good == teraSize {
		n.ended, r.Blob, r.Good = true, 1, 0
		w.events = append(w.events, coordinator.EvVerified{Node: n.number, Msg: &wire.Verified{Digests: []string{teraRoot()}}})
	}
	w.apply(coordinator.EvReport{Node: n.number, Report: r})
}

func teraRoot() string {
	return leaf.Digest(teraSum(wire.Mark{Offset: teraSize, Final: true})).String()
}

// hear has a node read what waits for it.
func (w *tera) hear(n *teraNode, c *control) {
	queue := c.queue
	c.queue, c.open, c.waiting = nil, false, 0
	for _, b := range queue {
		for len(b) > 0 {
			page, end := &b[0], 4+binary.BigEndian.Uint32(b)
			body := b[4:end]
			b = b[end:]
			if isMarks := body[0] == 11; isMarks && !n.exact {
				w.marked(n, body, page)
				continue
			}
			msg, err := wire.Decode(body)
			if err != nil {
				w.Fatal(err)
			}
			if marks, ok := msg.(*wire.Marks); ok {
				for _, k := range marks.Marks {
					if want := teraSum(k); !bytes.Equal(k.Sum, want) {
						w.Fatalf("node %d: the mark at %d has the sum %x, want %x", n.number, k.Offset, k.Sum, want)
					}
				}
				w.marked(n, body, page)
				continue
			}
			w.says(n, msg)
		}
	}
}

// marked has a node take the marks of a MARKS, of which it parses the first and the last offset only: nothing may be missing.
func (w *tera) marked(n *teraNode, body []byte, page *byte) {
	w.pages[weak.Make(page)] = true
	n.told++
	offset := func(at int) int64 {
		digits := body[at+len(`"offset":`):]
		off, err := strconv.ParseInt(string(digits[:bytes.IndexByte(digits, ',')]), 10, 64)
		if err != nil {
			w.Fatal(err)
		}
		return off
	}
	key := []byte(`"offset":`)
	first, last := offset(bytes.Index(body, key)), offset(bytes.LastIndex(body, key))
	if first > n.marks+leaf.Size {
		w.Fatalf("node %d has marks up to %d, and gets those from %d on", n.number, n.marks, first)
	}
	n.final = n.final || bytes.HasSuffix(body, []byte(`"final":true}]}`))
	if n.marks = max(n.marks, last); n.marks > n.good+(wire.MarksAhead+markPage)*leaf.Size {
		w.Fatalf("node %d has marks up to %d, though only %d are good", n.number, n.marks, n.good)
	}
}

// teraSum is the sum of a mark.
func teraSum(k wire.Mark) []byte { return sumNo(int(k.Offset/leaf.Size)*2 + len(fmt.Sprint(k.Final))) }

// says has a node answer a message.
func (w *tera) says(n *teraNode, m wire.Message) {
	switch m := m.(type) {
	case *wire.Offer:
		w.events = append(w.events, coordinator.EvAnswer{Node: n.number, Held: []int64{n.claim}, Free: -1, Replay: true})
	case *wire.Feed:
		n.feed = m
		var needs [][2]int64
		if n.accepted < teraSize {
			needs = append(needs, [2]int64{0, n.accepted})
		}
		w.events = append(w.events, coordinator.EvNeed{Node: n.number, Link: m.Link, Generation: m.Generation, Needs: needs})
	case *wire.Dial:
		n.feeds[m.Link] = true
		w.events = append(w.events, coordinator.EvLink{Node: n.number, Link: m.Link, Generation: m.Generation, State: wire.LinkUp})
	case *wire.Undial:
		delete(n.feeds, m.Link)
	case *wire.Commit:
		w.events = append(w.events, coordinator.EvCommitted{Node: n.number, Digest: teraRoot()})
	}
}

// A server that sends 2 TiB in leaves to a thousand nodes, one of which begins anew in the middle while the connections of a
// hundred break, takes little memory, sends each node all marks, and encodes them for all at once.
func TestTerabytes(t *testing.T) {
	if testing.Short() {
		t.Skip("takes long")
	}
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	idle, begun := heap(), time.Now()
	w := newTera(t)
	most := int64(0)
	look := func(when string) {
		if now := heap() - idle; now > most {
			most = now
			t.Logf("%s, %v, %d MiB read: %d MiB", when, time.Since(begun).Round(time.Millisecond), w.read>>20, now>>20)
		}
	}
	for _, n := range w.nodes[1:] {
		w.welcome(n, 1)
	}
	look("offered")
	w.settle()
	look("started")
	for w.read < teraSize/2 {
		w.second()
	}
	look("half is read")
	w.breakMany(true)
	w.loseOne()
	for range 3 {
		w.second()
	}
	look("a hundred nodes do not read")
	w.breakMany(false)
	for i := 0; w.read < teraSize; i++ {
		if w.second(); i%32 == 0 {
			look("the rest")
		}
	}
	w.apply(coordinator.EvSourceDone{Finals: []digest.Digest{digest.Digest(teraRoot())}, Sizes: []int64{teraSize}})
	look("read")
	for i := 0; !w.finished && i < 300; i++ {
		w.second()
	}
	look("committed")
	for _, row := range w.s.report().Nodes {
		if row.State != Committed {
			t.Fatalf("%s: %s %s", row.Node, row.State, row.Reason)
		}
	}
	told := 0
	for _, n := range w.nodes[1:] {
		told += n.told
	}
	// Nobody but the one that began anew, and those whose connections broke, is elsewhere than the others.
	if most := 2*teraSize/leaf.Size/teraPart + teraMany; len(w.pages) > most {
		t.Errorf("%d MARKS were encoded, want %d at most", len(w.pages), most)
	}
	t.Logf("%v; %d MARKS, of which %d were encoded", time.Since(begun), told, len(w.pages))
	if most > teraMemory {
		t.Errorf("takes %d MiB", most>>20)
	}
}

// breakMany breaks the control connections of many nodes, which come back at once and do not read what they are told, or has
// them read it.
func (w *tera) breakMany(deaf bool) {
	for _, n := range w.nodes[teraBroken : teraBroken+teraMany] {
		if n.deaf = deaf; deaf {
			w.apply(coordinator.EvControlLost{Node: n.number, Reason: "connection lost"})
			w.connect(n)
			w.apply(coordinator.EvResumed{Node: n.number, Instance: teraInstance(n, 1), State: wire.StateRunning})
		}
	}
	w.settle()
}

// loseOne has a node begin anew, with what it had as a claim.
func (w *tera) loseOne() {
	n := w.nodes[teraLost]
	w.apply(coordinator.EvControlLost{Node: n.number, Reason: "connection lost"})
	w.apply(coordinator.EvResumed{Node: n.number, Instance: teraInstance(n, 2), State: wire.StateUnknown})
	*n = teraNode{number: n.number, lag: n.lag, exact: n.exact, claim: n.good, accepted: n.good, feeds: map[uint32]bool{}}
	w.welcome(n, 2)
	w.settle()
}
