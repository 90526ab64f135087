package coordinator

import (
	"slices"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// How nodes come into the transfer: at its start, late, or again.

func (c *Machine) welcome(ev EvWelcome) {
	n := &c.nodes[ev.Node]
	if n.phase != phDialing && n.phase != phAway {
		return
	}
	n.contact.greeted(ev.Addr, ev.Version)
	n.row.NoSHA = ev.NoSHA
	if j := c.twin(ev); j > 0 {
		c.oneMachine(j, ev.Node)
		return
	}
	back := n.contact.met
	switch {
	case ev.State == wire.StateRunning && back && ev.Instance == n.contact.instance && n.holdings.held == nil:
		// What it answered was lost with its connection: it is asked anew.
		n.contact.open()
		c.tell(ev.Node, &wire.Abort{Reason: "its answer was lost", Keep: true})
		c.do(ActHangup{ev.Node})
		n.contact.close()
		c.do(ActRedial{ev.Node})
		return
	case ev.State == wire.StateRunning && back && ev.Instance == n.contact.instance:
		n.phase = phServing
		n.contact.open()
		n.progress.begin(c.now)
		c.returned(ev.Node)
		c.enter(ev.Node)
		c.remind(ev.Node)
		if n.holdings.lacks && n.feed.state != feedAsked {
			c.relink(ev.Node)
		}
		return
	case ev.State == wire.StateBusy && n.phase == phAway:
		c.do(ActRedial{ev.Node})
		return
	case ev.State == wire.StateBusy || ev.State == wire.StateRunning || State(ev.State).Good():
		c.end(ev.Node, Refused, Said(wire.CodeNone, ev.Reason).orCause(answers(ev.State)))
		return
	}
	n.phase = phAsked
	n.contact.offer(ev.Instance, c.now)
	n.holdings.forget()
	if back {
		c.returned(ev.Node)
	}
	c.do(ActOffer{ev.Node})
}

// twin is the node that was greeted under another name, and is the same process; 0: there is none.
func (c *Machine) twin(ev EvWelcome) int {
	for j := range c.nodes {
		if o := &c.nodes[j]; j != ev.Node && o.contact.met && o.contact.instance == ev.Instance {
			return j
		}
	}
	return 0
}

// oneMachine fails two names of one machine, because nobody can tell which of the two requested nodes it is.
// known is the one that was greeted first. If it was told to commit, that cannot be taken back, and its row stays.
func (c *Machine) oneMachine(known, other int) {
	a, b := min(known, other), max(known, other)
	why := because(KindTwin, "%s and %s are one machine", c.nodes[a].named(), c.nodes[b].named())
	switch o := &c.nodes[known]; {
	case o.phase < phCommitting:
		c.end(known, Failed, why)
		c.nodes[other].contact.open() // its connection may be the one that the machine listens to by now
	case o.phase == phCommitting || o.row.State.Good():
		why.Text += ", on which " + o.name + " was told to commit before"
	}
	c.end(other, Failed, why)
}

// named is the name of a node, with the address it answered at.
func (n *node) named() string {
	if n.contact.addr == "" || n.contact.addr == n.name {
		return n.name
	}
	return n.name + " " + n.contact.addr
}

// returned notes that a lost node is there again.
func (c *Machine) returned(i int) {
	n := &c.nodes[i]
	n.contact.cameBack()
	n.note = n.row.Cause.In(KindReturned, "came back: ")
	n.row.State = Serving
	c.event(i, Serving, n.note)
}

// noContact handles first dials that all failed. A refusal is final; other nodes may answer later.
func (c *Machine) noContact(ev EvNoContact) {
	n := &c.nodes[ev.Node]
	if n.phase != phDialing {
		return
	}
	if ev.State == Refused || ev.Lasting {
		c.end(ev.Node, ev.State, ev.Cause)
		return
	}
	n.phase = phAway
	n.row.Cause = ev.Cause
	if c.started {
		c.do(ActRedial{ev.Node})
	}
	c.event(ev.Node, Unreachable, ev.Cause)
}

func (c *Machine) answer(ev EvAnswer) {
	n := &c.nodes[ev.Node]
	if n.phase != phAsked {
		return
	}
	if ev.Code != wire.CodeNone {
		state := Refused
		switch ev.Code {
		case wire.CodeSpace, wire.CodeStore, wire.CodeShutdown, wire.CodeProtocol:
			state = Failed
		}
		c.end(ev.Node, state, Said(ev.Code, ev.Reason))
		return
	}
	if len(ev.Held) != len(c.blobs) {
		c.end(ev.Node, Failed, because(KindProtocol, "answered the offer with another number of blobs"))
		return
	}
	sets, right := c.setsOf(ev.Leaves)
	if !right {
		c.end(ev.Node, Failed, because(KindProtocol, "answered the offer with leaves that there are not"))
		return
	}
	if c.unplanned(ev) {
		return
	}
	var missing int64
	n.phase, n.row.Free, n.row.Target = phReady, ev.Free, string(ev.Target)
	n.row.Skipped, missing = n.holdings.take(c.blobs, c.sizes, ev, sets, n.progress.report.Received, c.cfg.MarkEvery)
	n.progress.forget()
	n.taken, n.commit, n.compared = taken{}, commit{}, compared{}
	n.feed.rest()
	if (c.started || !c.compares(ev.Node)) && !c.hasRoom(ev.Node, missing) { // one that compares needs room for what differs only
		return
	}
	if c.started && !c.cfg.Check {
		c.join(ev.Node)
	}
}

// join starts a node, at the end of the order.
func (c *Machine) join(i int) {
	n := &c.nodes[i]
	n.phase, n.row.State = phServing, Serving
	n.progress.begin(c.now)
	c.start(i)
	c.do(ActMarks{i})
	c.enter(i)
	if n.holdings.lacks {
		c.relink(i)
	}
}

// enter gives a node its place at the end of the order.
func (c *Machine) enter(i int) {
	if c.nodes[i].holdings.lacks && !slices.Contains(c.order, i) {
		c.order = append(c.order, i)
	}
}

// maybeStart makes the chain once every node has answered or is out, or when the
// deadline passed: those that have not answered by then may join late. A plan has no latecomers, so it waits for the answer
// of every node that was asked.
func (c *Machine) maybeStart(deadline bool) {
	if c.started || c.finished {
		return
	}
	c.due = c.due || deadline
	ready, busy := false, false
	for i := 1; i < len(c.nodes); i++ {
		n := &c.nodes[i]
		if !c.due && n.phase == phDialing || n.phase == phAsked && (!c.due || c.plans()) {
			return
		}
		ready, busy = ready || n.phase == phReady, busy || n.phase == phAsked && n.contact.busy
	}
	if busy && !ready {
		return // there is nobody to begin with
	}
	if c.cfg.Confirm && !c.cfg.Check && !c.agreed {
		c.closePlan()
		return
	}
	if c.cfg.Compare && !c.cfg.Check && ready && c.compare() {
		return
	}
	c.started = true
	if c.cfg.Check {
		c.checkWays()
		return
	}
	read := make([]bool, len(c.blobs))
	for i := 1; i < len(c.nodes); i++ {
		n := &c.nodes[i]
		if n.phase == phAway {
			c.do(ActRedial{i})
		}
		if n.phase != phReady {
			continue
		}
		for b := range n.holdings.held {
			read[b] = read[b] || n.holdings.held[b] < 0 || c.blobs[b].Digest == "" // who joins late may lack it
		}
		c.enter(i)
	}
	c.do(ActPlan{slices.Clone(c.order), read})
	for i := 1; i < len(c.nodes); i++ {
		if n := &c.nodes[i]; n.phase == phReady {
			n.phase, n.row.State = phServing, Serving
			n.progress.begin(c.now)
			c.start(i)
			if c.comparing.begun {
				c.do(ActMarks{i}) // they are there already, and a node has dropped those with which it compared
			}
		}
	}
	for _, i := range c.order {
		c.relink(i)
	}
}

// endCheck ends a transfer that only asked the nodes. The rows of those that would be served are pending.
func (c *Machine) endCheck() {
	for i := 1; i < len(c.nodes); i++ {
		switch n := &c.nodes[i]; n.phase {
		case phReady:
			n.row.State = Pending
			if !n.holdings.lacks && !n.holdings.change {
				n.row.State = Held
			}
			n.phase = phFinal
			c.tell(i, &wire.Abort{Code: wire.CodeAsked, Reason: wire.ReasonAsked, Keep: true})
		case phDialing, phAway:
			c.unanswered(i)
		case phAsked:
			c.end(i, Unreachable, unanswered)
		}
	}
	c.finish(nil)
}

// maybeRead starts to read the source: when the server's first link is ordered, or
// when no link will be, because everybody holds everything, lacks only empty
// blobs, or died.
func (c *Machine) maybeRead() {
	if !c.started || c.reading || c.finished || c.cfg.Check {
		return
	}
	waiting := false
	for i := 1; i < len(c.nodes); i++ {
		n := &c.nodes[i]
		if n.phase == phFinal || n.phase == phAway {
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
		c.do(ActSource{c.common()})
	}
}

// lose takes a node out of the chain; it is dialled again while others are served.
func (c *Machine) lose(i int, why Cause) {
	n := &c.nodes[i]
	if n.contact.returns >= c.cfg.Retries || c.interrupted {
		c.end(i, Failed, why)
		return
	}
	if n.contact.alive {
		c.do(ActHangup{i})
	}
	n.phase = phAway
	n.contact.close()
	n.blame.unsuspect()
	n.pace.slowedNode(0)
	n.reach = reach{}
	c.forgetSlowed(i)
	n.row.Link = "" // its links broke because it did
	n.row.Cause = why
	c.event(i, Lost, why)
	c.orphan(i)
	c.leave(i)
	if c.started {
		c.do(ActRedial{i})
	}
}

// leave takes a dead node out of the order. Failures of links that were counted against it are forgotten, because
// the node failed and not the links.
func (c *Machine) leave(i int) {
	c.order = slices.DeleteFunc(c.order, func(j int) bool { return j == i })
	c.dropProbes(i)
	for j := range c.nodes {
		n := &c.nodes[j]
		if n.tries.forget(i) && n.phase < phFinal {
			n.note, n.row.Link = Cause{}, ""
		}
	}
}
