package ring

import (
	"fmt"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// chain is the coordinator: it decides who is in the chain, who feeds whom, who
// may commit and what each row says. It does no I/O and knows no time: step takes
// one event and returns what is to be done. All its state is owned by the one
// goroutine that calls step (sender.loop).
//
// Nodes are numbered from 1 in the order asked for; 0 is the server. The diagrams
// of PROTOCOL.md section 8 are this file's phases.
type chain struct {
	blobs    []v1.Descriptor
	nodes    []chainNode // [0] is the server and never used as a node
	nextLink uint32

	started     bool
	reading     bool // actSource was given
	sourceDone  bool
	finals      []digest.Digest // per blob, once sourceDone
	committing  bool            // some node was told to commit: no way back
	interrupted bool
	finished    bool

	out []action
}

type phase int

const (
	phDialing    phase = iota
	phAsked            // OFFER sent
	phReady            // ANSWER came, waits for the start
	phServing          // START sent
	phVerified         // everything durable, waits for COMMIT
	phCommitting       // COMMIT sent
	phFinal            // its row is final; it may still forward while alive
)

type feedState int

const (
	feedNone    feedState = iota
	feedAsked             // FEED sent, NEED awaited
	feedDialled           // DIAL sent
	feedUp
	feedDone // FIN came, or nothing is needed any more
)

// chainNode is what the coordinator knows of one node.
type chainNode struct {
	phase    phase
	alive    bool // its control connection is open
	resuming bool // its control connection broke and is being dialled again
	instance wire.ID
	held     []int64
	lacks    bool // some blob: it takes part in the chain
	report   wire.Report
	verified *wire.Verified
	row      Row
	ordered  []uint32 // all links it was told to feed

	feed struct {
		state    feedState
		link     uint32
		gen      uint32 // only grows
		feeder   int
		fails    int // links from one feeder, the culprit, lost in a row
		culprit  int
		direct   bool  // only the server may feed it
		needSum  int64 // of the last NEED, to see progress
		replaces []ownedLink
	}
}

// ownedLink is a dead link whose feeder still holds its window for it: UNDIAL is
// due once the link that stands in for it was ordered.
type ownedLink struct {
	feeder int
	link   uint32
}

func newChain(peers []Peer, blobs []v1.Descriptor) *chain {
	c := &chain{blobs: blobs, nodes: make([]chainNode, len(peers)+1)}
	for i, p := range peers {
		c.nodes[i+1].row = Row{Node: p.Name, State: Pending}
	}
	return c
}

// step applies one event and returns the actions it causes, in order.
func (c *chain) step(ev any) []action {
	c.out = nil
	if c.finished {
		return nil
	}
	switch ev := ev.(type) {
	case evWelcome:
		c.welcome(ev)
	case evNoContact:
		c.end(ev.node, ev.state, ev.reason)
	case evAnswer:
		c.answer(ev)
	case evDeadline:
		c.maybeStart(true)
	case evNeed:
		c.need(ev)
	case evLink:
		c.link(ev)
	case evReport:
		if n := &c.nodes[ev.node]; n.phase >= phServing {
			n.report = ev.report
		}
	case evVerified:
		c.nodeVerified(ev)
	case evCommitted:
		c.nodeCommitted(ev)
	case evFail:
		c.fail(ev)
	case evControlLost:
		c.controlLost(ev)
	case evResumed:
		c.resumed(ev)
	case evSourceDone:
		c.sourceDone, c.finals = true, ev.finals
		for i := range c.nodes {
			c.maybeCommit(i)
		}
	case evSourceFailed:
		c.abortAll("source: "+ev.err.Error(), &SourceError{ev.err})
	case evInterrupt:
		c.interrupt()
	default:
		panic(fmt.Sprintf("ring: unknown event %T", ev))
	}
	c.maybeStart(false)
	c.maybeRead()
	c.maybeFinish()
	return c.out
}

func (c *chain) do(a action) { c.out = append(c.out, a) }

func (c *chain) tell(i int, m wire.Message) {
	if c.nodes[i].alive {
		c.do(actSend{i, m})
	}
}

func (c *chain) welcome(ev evWelcome) {
	n := &c.nodes[ev.node]
	if n.phase != phDialing {
		return
	}
	for j := range c.nodes {
		if o := &c.nodes[j]; j != ev.node && o.instance == ev.instance && o.alive {
			c.end(ev.node, Failed, "is the same node as "+o.row.Node)
			return
		}
	}
	if ev.state != wire.StateNew {
		c.end(ev.node, Refused, orElse(ev.reason, "node answers "+ev.state))
		return
	}
	n.instance, n.alive, n.phase = ev.instance, true, phAsked
	c.do(actOffer{ev.node})
}

func (c *chain) answer(ev evAnswer) {
	n := &c.nodes[ev.node]
	if n.phase != phAsked {
		return
	}
	if ev.code != CodeNone {
		state := Refused
		if ev.code == CodeSpace || ev.code == CodeStore {
			state = Failed
		}
		c.end(ev.node, state, ev.reason)
		return
	}
	if len(ev.held) != len(c.blobs) {
		c.end(ev.node, Failed, "answered the offer with another number of blobs")
		return
	}
	n.phase, n.held = phReady, make([]int64, len(c.blobs))
	var missing int64
	for b, d := range c.blobs {
		// Only a blob held to its last byte counts: a part is a claim that
		// nobody has checked. Of an empty one nobody can tell: it is made again.
		if d.Size > 0 && d.Digest != "" && ev.held[b] == d.Size {
			n.held[b] = d.Size
			n.row.Skipped += d.Size
			continue
		}
		n.held[b] = -1
		n.lacks = true
		missing += max(d.Size, 0)
	}
	if ev.free >= 0 && missing > ev.free {
		c.end(ev.node, Failed, fmt.Sprintf("no space: needs %d bytes, %d are free", missing, ev.free))
	}
}

// maybeStart makes the chain once every node has answered or is out, or when the
// deadline passed: then those that did not answer are left out.
func (c *chain) maybeStart(deadline bool) {
	if c.started {
		return
	}
	for i := 1; i < len(c.nodes); i++ {
		switch n := &c.nodes[i]; {
		case n.phase == phDialing && deadline:
			c.end(i, Unreachable, "no answer before the start")
		case n.phase == phAsked && deadline:
			c.end(i, Unreachable, "did not answer the offer before the start")
		case n.phase < phReady:
			return
		}
	}
	c.started = true
	var plan []int
	read := make([]bool, len(c.blobs))
	for i := 1; i < len(c.nodes); i++ {
		n := &c.nodes[i]
		if n.phase != phReady {
			continue
		}
		n.phase, n.row.State = phServing, Serving
		c.tell(i, &wire.Start{})
		for b := range n.held {
			read[b] = read[b] || n.held[b] < 0
		}
		if n.lacks {
			plan = append(plan, i)
		}
	}
	c.do(actPlan{plan, read})
	for _, i := range plan {
		c.relink(i)
	}
}

// maybeRead starts to read the source: when the server's first link is ordered, or
// when no link will be, because everybody holds everything, lacks only empty
// blobs, or died.
func (c *chain) maybeRead() {
	if !c.started || c.reading {
		return
	}
	waiting := false
	for i := 1; i < len(c.nodes); i++ {
		n := &c.nodes[i]
		if n.phase == phFinal {
			continue
		}
		if n.feed.state == feedDialled && n.feed.feeder == 0 {
			waiting = false
			break
		}
		waiting = waiting || n.feed.state == feedAsked || n.feed.state == feedDialled
	}
	if !waiting {
		c.reading = true
		c.do(actSource{})
	}
}
