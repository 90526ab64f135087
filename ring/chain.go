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

	feed struct {
		state    feedState
		link     uint32
		gen      uint32 // only grows
		feeder   int
		fails    int   // links lost in a row without progress
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
		c.maybeStart(false)
	case evAnswer:
		c.answer(ev)
		c.maybeStart(false)
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
			c.maybeStart(false)
			return
		}
	}
	if ev.state != wire.StateNew {
		c.end(ev.node, Refused, orElse(ev.reason, "node answers "+ev.state))
		c.maybeStart(false)
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
		// nobody has checked.
		if d.Size >= 0 && d.Digest != "" && ev.held[b] == d.Size {
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
	if len(plan) == 0 {
		c.startSource()
	}
}

func (c *chain) startSource() {
	if !c.reading {
		c.reading = true
		c.do(actSource{})
	}
}

// relink gives node i a new generation; its feeder is chosen when it says what it
// needs.
func (c *chain) relink(i int) {
	n := &c.nodes[i]
	if n.feed.state == feedDialled || n.feed.state == feedUp {
		n.feed.replaces = append(n.feed.replaces, ownedLink{n.feed.feeder, n.feed.link})
	}
	c.nextLink++
	n.feed.state, n.feed.link = feedAsked, c.nextLink
	n.feed.gen++
	if n.alive {
		c.do(actFeed{i, n.feed.link, n.feed.gen, c.pickFeeder(i)})
	}
}

// pickFeeder is the nearest node before i that is in the chain and alive, else
// the server. Since it is always a lower number there are no cycles.
func (c *chain) pickFeeder(i int) int {
	if c.nodes[i].feed.direct {
		return 0
	}
	for j := i - 1; j > 0; j-- {
		if n := &c.nodes[j]; n.alive && n.lacks && n.phase >= phServing {
			return j
		}
	}
	return 0
}

func (c *chain) need(ev evNeed) {
	n := &c.nodes[ev.node]
	if n.feed.state != feedAsked || ev.gen != n.feed.gen || ev.link != n.feed.link {
		return
	}
	if len(ev.needs) == 0 {
		n.feed.state = feedDone
		c.undial(n)
		return
	}
	if sum := needSum(c.blobs, ev.needs); sum != n.feed.needSum {
		n.feed.needSum, n.feed.fails = sum, min(n.feed.fails, 1)
	}
	n.feed.feeder, n.feed.state = c.pickFeeder(ev.node), feedDialled
	c.do(actDial{n.feed.feeder, ev.node, n.feed.link, n.feed.gen, ev.needs})
	c.undial(n)
	if n.feed.feeder == 0 {
		c.startSource()
	}
}

// needSum folds a NEED into one number that changes when anything was received.
func needSum(blobs []v1.Descriptor, needs [][2]int64) (s int64) {
	for _, nd := range needs {
		s += nd[1] + 1 // a stream has no size to subtract from
		if b := nd[0]; b >= 0 && b < int64(len(blobs)) {
			s -= max(blobs[b].Size, 0) + 1
		}
	}
	return s
}

// undial ends the dead links that a new order for n stands in for.
func (c *chain) undial(n *chainNode) {
	for _, l := range n.feed.replaces {
		if l.feeder == 0 || c.nodes[l.feeder].alive {
			c.do(actUndial{l.feeder, l.link})
		}
	}
	n.feed.replaces = nil
}

func (c *chain) link(ev evLink) {
	for i := 1; i < len(c.nodes); i++ {
		n := &c.nodes[i]
		if n.feed.link != ev.link || n.feed.gen != ev.gen {
			continue
		}
		if n.feed.state != feedDialled && n.feed.state != feedUp {
			return
		}
		if ev.node != i && ev.node != n.feed.feeder {
			return // nobody reports about others' links
		}
		name := c.linkName(i)
		switch {
		case ev.state == wire.LinkUp && ev.node != i:
			n.feed.state = feedUp
			c.do(actEvent{Event{Kind: EventLink, Link: name, Reason: "up"}})
		case ev.state == wire.LinkDone && ev.node == i:
			n.feed.state = feedDone
		case ev.state == wire.LinkDown && n.phase < phFinal:
			c.do(actEvent{Event{Kind: EventLink, Link: name, Reason: "down: " + ev.reason}})
			c.linkDown(i, name, ev)
		}
		return
	}
}

func (c *chain) linkDown(i int, name string, ev evLink) {
	n := &c.nodes[i]
	n.feed.fails++
	gone := ev.code == CodeGone
	if gone && n.feed.feeder == 0 || n.feed.fails >= 4 {
		n.row.Link = name
		c.end(i, Failed, "cannot be fed: "+ev.reason)
		return
	}
	if gone || n.feed.fails >= 2 {
		n.feed.direct = true
	}
	c.relink(i)
}

func (c *chain) linkName(i int) string {
	from := "server"
	if f := c.nodes[i].feed.feeder; f > 0 {
		from = c.nodes[f].row.Node
	}
	return from + " -> " + c.nodes[i].row.Node
}

func (c *chain) nodeVerified(ev evVerified) {
	n := &c.nodes[ev.node]
	if n.phase != phServing {
		if n.phase == phCommitting { // it resumed before our COMMIT reached it
			c.tell(ev.node, &wire.Commit{})
		}
		return
	}
	if len(ev.msg.Digests) != len(c.blobs) {
		c.end(ev.node, Failed, "verified another number of blobs")
		return
	}
	n.phase, n.verified = phVerified, ev.msg
	n.feed.state = feedDone
	c.undial(n)
	c.maybeCommit(ev.node)
}

// maybeCommit tells a verified node to publish, once the source is known to be
// good and the node's digests are the source's.
func (c *chain) maybeCommit(i int) {
	n := &c.nodes[i]
	if n.phase != phVerified || !c.sourceDone || c.interrupted {
		return
	}
	for b, want := range c.finals {
		if n.verified.Digests[b] != want.String() {
			c.end(i, Failed, fmt.Sprintf("blob %d: node computed %s, the source has %s", b, n.verified.Digests[b], want))
			return
		}
	}
	if !c.committing {
		c.committing = true
		c.do(actEvent{Event{Kind: EventCommit}})
	}
	n.phase = phCommitting
	c.tell(i, &wire.Commit{})
}

func (c *chain) nodeCommitted(ev evCommitted) {
	n := &c.nodes[ev.node]
	if n.phase != phCommitting {
		return
	}
	if want := c.finals[len(c.finals)-1].String(); ev.digest != want {
		c.end(ev.node, Failed, fmt.Sprintf("committed %s instead of %s", ev.digest, want))
		return
	}
	n.row.Digest = ev.digest
	state := Committed
	if n.verified != nil && n.verified.InPlace {
		state = Held
	}
	c.final(ev.node, state, "")
}

func (c *chain) fail(ev evFail) {
	n := &c.nodes[ev.node]
	if n.phase >= phFinal {
		return
	}
	if ev.code == CodeMismatch && n.feed.link != 0 {
		n.row.Link = c.linkName(ev.node)
	}
	c.end(ev.node, Failed, ev.reason)
}

// controlLost asks a node whose control connection broke whether it is still
// there, at once.
func (c *chain) controlLost(ev evControlLost) {
	n := &c.nodes[ev.node]
	if !n.alive {
		return
	}
	n.alive = false
	switch {
	case n.phase == phFinal:
		c.orphan(ev.node)
	case n.phase < phServing:
		c.end(ev.node, Failed, ev.reason)
		c.maybeStart(false)
	case ev.silent && n.phase != phCommitting:
		c.end(ev.node, Failed, ev.reason)
	default:
		n.resuming = true
		c.do(actResume{ev.node, n.phase == phCommitting})
	}
}

func (c *chain) resumed(ev evResumed) {
	n := &c.nodes[ev.node]
	if !n.resuming {
		return
	}
	n.resuming = false
	same := ev.instance == n.instance
	switch {
	case same && ev.state == wire.StateRunning:
		n.alive = true
		c.do(actMarks{ev.node}) // it may have missed some
		if n.phase == phCommitting {
			c.tell(ev.node, &wire.Commit{})
		}
		if n.feed.state == feedAsked || n.feed.state == feedDialled {
			c.relink(ev.node)
		}
		for j := range c.nodes {
			if f := &c.nodes[j].feed; f.feeder == ev.node && f.state == feedDialled {
				c.relink(j)
			}
		}
	case same && n.phase == phCommitting && State(ev.state).Good():
		c.nodeCommitted(evCommitted{ev.node, ev.digest})
	case n.phase == phCommitting:
		c.end(ev.node, Failed, "commit not confirmed: "+orElse(ev.reason, "node answers "+ev.state))
	case ev.state == string(Failed):
		c.end(ev.node, Failed, ev.reason)
	default:
		c.end(ev.node, Failed, "lost: "+orElse(ev.reason, "the node restarted"))
	}
}

func (c *chain) interrupt() {
	if !c.committing {
		c.abortAll("interrupted", errInterrupted)
		return
	}
	c.interrupted = true
	for i := 1; i < len(c.nodes); i++ {
		if c.nodes[i].phase < phCommitting {
			c.end(i, Failed, "interrupted")
		}
	}
}

func (c *chain) abortAll(reason string, err error) {
	for i := 1; i < len(c.nodes); i++ {
		if c.nodes[i].phase < phFinal {
			c.end(i, Failed, reason)
		}
	}
	c.finish(err)
}

// end makes a bad row final, drops the node, and gives its successors another
// feeder.
func (c *chain) end(i int, s State, reason string) {
	n := &c.nodes[i]
	if n.phase == phFinal {
		return
	}
	c.tell(i, &wire.Abort{Reason: reason})
	if n.alive {
		c.do(actHangup{i})
	}
	n.alive, n.resuming = false, false
	c.final(i, s, reason)
	c.orphan(i)
}

// final fixes the row of i.
func (c *chain) final(i int, s State, reason string) {
	n := &c.nodes[i]
	n.phase = phFinal
	n.row.State, n.row.Reason, n.row.Bytes = s, reason, n.report.Received
	c.do(actFinal{i})
}

// orphan gives those that the dead node i fed another feeder, and frees the
// feeder of i, whose window is what the first of them goes on from.
func (c *chain) orphan(i int) {
	dead := &c.nodes[i]
	if dead.feed.state == feedDialled || dead.feed.state == feedUp {
		dead.feed.replaces = append(dead.feed.replaces, ownedLink{dead.feed.feeder, dead.feed.link})
	}
	dead.feed.state = feedDone
	heir := 0
	for j := i + 1; j < len(c.nodes); j++ {
		n := &c.nodes[j]
		fed := n.feed.feeder == i && (n.feed.state == feedDialled || n.feed.state == feedUp)
		if n.phase == phFinal || !fed && n.feed.state != feedAsked {
			continue
		}
		if fed {
			c.relink(j)
		}
		if heir == 0 {
			heir = j
		}
	}
	if heir == 0 {
		c.undial(dead)
		return
	}
	h := &c.nodes[heir]
	h.feed.replaces = append(h.feed.replaces, dead.feed.replaces...)
	dead.feed.replaces = nil
}

// maybeFinish ends the transfer when every row is final.
func (c *chain) maybeFinish() {
	for i := 1; i < len(c.nodes); i++ {
		if c.nodes[i].phase != phFinal {
			return
		}
	}
	c.finish(nil)
}

func (c *chain) finish(err error) {
	if c.finished {
		return
	}
	c.finished = true
	for i := 1; i < len(c.nodes); i++ {
		c.tell(i, &wire.Bye{})
	}
	c.do(actFinish{err})
}

func orElse(s, other string) string {
	if s != "" {
		return s
	}
	return other
}
