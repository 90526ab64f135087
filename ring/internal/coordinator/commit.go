package coordinator

import (
	"slices"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/opencontainers/go-digest"
)

// This file has how a node's part in a transfer ends: the two steps to commit, losses, and the final rows.

// commit is what a node said at the end of its part, and when it was told to publish.
type commit struct {
	// verified is the VERIFIED of the node, or nil if none came yet.
	verified *wire.Verified
	// since is when COMMIT was sent, or when the time to answer it began anew.
	since time.Duration
}

func (c *commit) verify(v *wire.Verified) { c.verified = v }

// order notes that the node is told to publish, or that its time for that begins anew.
func (c *commit) order(now time.Duration) { c.since = now }

// differs returns the first blob for which the node's VERIFIED has another digest than the source.
func (c *commit) differs(finals []digest.Digest) (blob int, differs bool) {
	for b, want := range finals {
		if c.verified.Digests[b] != want.String() {
			return b, true
		}
	}
	return 0, false
}

func (c *Machine) nodeVerified(ev EvVerified) {
	n := &c.nodes[ev.Node]
	if n.phase != phServing {
		if n.phase == phCommitting { // the node resumed before our COMMIT reached it
			c.tell(ev.Node, &wire.Commit{})
		}
		return
	}
	if len(ev.Msg.Digests) != len(c.blobs) {
		c.end(ev.Node, Failed, because(KindProtocol, "verified another number of blobs"))
		return
	}
	n.phase = phVerified
	n.commit.verify(ev.Msg)
	n.progress.verified(c.now)
	if n.feed.linked() {
		c.release(n)
	}
	n.feed.finish()
	c.undial(n)
	c.maybeCommit(ev.Node)
}

// maybeCommit tells a verified node to publish. It does so once the source is known to be good, and only if the digests
// of the node are those of the source.
func (c *Machine) maybeCommit(i int) {
	n := &c.nodes[i]
	if n.phase != phVerified || !c.sourceDone || c.interrupted {
		return
	}
	if b, differs := n.commit.differs(c.finals); differs {
		c.end(i, Failed, because(KindMismatch, "%s: node computed %s, the source has %s", wire.Called(c.blobs, b), n.commit.verified.Digests[b], c.finals[b]))
		return
	}
	if !c.committing {
		c.committing = true
		c.do(ActCommit{})
	}
	n.phase = phCommitting
	n.commit.order(c.now)
	n.overwriting.order()
	c.tell(i, &wire.Commit{})
}

func (c *Machine) nodeCommitted(ev EvCommitted) {
	n := &c.nodes[ev.Node]
	if n.phase != phCommitting {
		return
	}
	if want := c.finals[len(c.finals)-1].String(); ev.Digest != want {
		c.end(ev.Node, Failed, because(KindMismatch, "committed %s instead of %s", ev.Digest, want))
		return
	}
	n.row.Digest = ev.Digest
	state := Committed
	if n.commit.verified != nil && n.commit.verified.InPlace && !wire.Moved(c.blobs, n.progress.report.Received) {
		state = Held
	}
	c.final(ev.Node, state, Cause{})
}

func (c *Machine) fail(ev EvFail) {
	n := &c.nodes[ev.Node]
	if n.phase >= phFinal {
		return
	}
	n.row.Link = "" // no link is at fault: the node's links broke because it gave up
	if ev.Code == wire.CodeMismatch && n.feed.link != 0 {
		n.row.Link = c.linkName(ev.Node)
	}
	if ev.Code != wire.CodeVersion { // the server itself may have found that out
		n.overwriting.failed()
	}
	c.end(ev.Node, Failed, Said(ev.Code, ev.Reason))
}

// controlLost handles a broken control connection. It asks the node at once whether it is still there.
func (c *Machine) controlLost(ev EvControlLost) {
	n := &c.nodes[ev.Node]
	if !n.contact.alive {
		return
	}
	n.contact.close()
	switch {
	case n.phase == phFinal:
		c.orphan(ev.Node)
	case n.phase < phReady || ev.Silent && n.phase != phCommitting: // a node that is not ready may not know the transfer yet
		why := because(KindLost, "%s", ev.Reason)
		if ev.Silent {
			why.Fault = FaultHangs
		}
		c.lose(ev.Node, why)
	default:
		n.contact.resume()
		c.do(ActResume{ev.Node, n.phase == phCommitting})
	}
}

func (c *Machine) resumed(ev EvResumed) {
	n := &c.nodes[ev.Node]
	if !n.contact.resuming {
		return
	}
	n.contact.close()
	same := ev.Instance == n.contact.instance
	switch {
	case same && ev.State == wire.StateRunning:
		if n.contact.resumes(n.progress.has) > maxResumes {
			c.lose(ev.Node, because(KindLost, "its connection broke %d times, and nothing moved in between", maxResumes+1))
			return
		}
		n.contact.open()
		n.progress.resume(c.now)
		c.remind(ev.Node)
	case same && n.phase == phCommitting && State(ev.State).Good():
		c.nodeCommitted(EvCommitted{ev.Node, ev.Digest})
		c.orphan(ev.Node) // the node has ended the transfer, and feeds nobody any more
	case n.phase == phCommitting && ev.State == "" && !ev.Committed:
		// COMMIT was ordered while the node was being asked, so it was not asked for as long as a COMMIT gives it.
		n.contact.resume()
		c.do(ActResume{ev.Node, true})
	case n.phase == phCommitting:
		c.end(ev.Node, Failed, ev.Cause.orCause(answers(ev.State)).In(KindUnconfirmed, "commit not confirmed: "))
	case same && ev.State == string(Failed):
		c.end(ev.Node, Failed, ev.Cause)
	default:
		c.lose(ev.Node, ev.Cause.orCause(because(KindLost, "the node restarted")).In(KindLost, "lost during the transfer: "))
	}
}

// remind tells a node that resumed again what it may have missed. It makes new links for the node and for those that the
// node feeds, because what the node said about the old links may be lost.
func (c *Machine) remind(i int) {
	n := &c.nodes[i]
	if n.phase == phServing {
		c.start(i)
		c.do(ActMarks{i})
	}
	if n.phase == phReady && n.compared.waits() {
		c.tell(i, &wire.Compare{})
		c.do(ActMarks{i})
	}
	if n.blame.suspect != nil { // the node's FALLBACK came, and it has no new link yet
		n.blame.unsuspect()
		c.relink(i)
	}
	if n.phase == phCommitting {
		c.tell(i, &wire.Commit{})
	}
	for j := range c.nodes {
		f := &c.nodes[j].feed
		if linked := f.linked(); linked && (j == i || f.feeder == i) || j == i && f.state == feedAsked {
			if linked && f.feeder == i {
				c.nodes[j].taken.unknown() // the feeder's last report may be lost
			}
			c.relink(j)
		}
	}
	due := map[uint32]bool{} // UNDIAL for these links is sent once other links stand in for them
	for j := range c.nodes {
		for _, l := range c.nodes[j].feed.replaces {
			due[l.link] = true
		}
	}
	for _, l := range slices.Clone(n.feed.ordered) {
		if !due[l] {
			c.endLink(ownedLink{i, l})
		}
	}
}

func (c *Machine) interrupt() {
	if !c.committing {
		c.abortAll(interrupted, wire.CodeInterrupted, ErrInterrupted, true)
		return
	}
	c.interrupted = true
	for i := range c.nodes {
		c.nodes[i].commit.order(c.now) // commitLimit counts from now on
	}
	for _, i := range c.fromTail() {
		if c.nodes[i].phase < phCommitting {
			c.drop(i, Failed, interrupted, wire.CodeInterrupted, true)
		}
	}
}

func (c *Machine) abortAll(why Cause, code wire.Code, err error, keep bool) {
	for _, i := range c.fromTail() {
		if c.nodes[i].phase < phFinal {
			c.drop(i, Failed, why, code, keep)
		}
	}
	c.finish(err)
}

// fromTail lists all nodes in an order in which they can be dropped without feeding any of them anew: successors come
// before their feeders.
func (c *Machine) fromTail() []int {
	all := slices.Clone(c.order)
	for i := 1; i < len(c.nodes); i++ {
		if !slices.Contains(c.order, i) {
			all = append(all, i)
		}
	}
	slices.Reverse(all)
	return all
}

// end makes a bad row final, drops the node, and gives its successors another feeder.
func (c *Machine) end(i int, s State, why Cause) { c.drop(i, s, why, wire.CodeNone, false) }

// drop is like end. Code tells the node what ended its part, if that was not the node itself. If keep is true, the node
// keeps its good parts for another push. A node that may be overwriting something has then still to say whether it is.
func (c *Machine) drop(i int, s State, why Cause, code wire.Code, keep bool) {
	n := &c.nodes[i]
	if n.phase == phFinal {
		return
	}
	c.tell(i, &wire.Abort{Code: code, Reason: wire.Cut(why.String()), Keep: keep})
	switch {
	case code != wire.CodeNone && c.parts(i, s):
		n.overwriting.part()
	case n.contact.alive:
		c.do(ActHangup{i})
	}
	n.contact.close()
	n.blame.unsuspect()
	if why.Kind != KindSlow { // if this link was too slow, it still counts: the next slow one from the same feeder may convict the feeder
		c.forgetSlowed(i)
	}
	c.final(i, s, why)
	c.orphan(i)
	c.leave(i)
}

// final fixes the row of i. If it ends well, its cause is what happened on the way.
func (c *Machine) final(i int, s State, why Cause) {
	n := &c.nodes[i]
	n.phase = phFinal
	n.row.State, n.row.Bytes = s, n.holdings.lost+n.progress.report.Received
	n.row.Became = c.becomes(i, s)
	n.row.Cause = why.orCause(n.note)
	n.row.Skipped = min(n.row.Skipped, n.holdings.first) // a node that came back may hold more, which it got in this transfer
	c.do(ActFinal{i})
}

// maybeFinish ends the transfer when no node is served any more. It does not wait for nodes that are lost or never
// answered.
func (c *Machine) maybeFinish() {
	if c.finished {
		return
	}
	away := 0
	for i := 1; i < len(c.nodes); i++ {
		switch p := c.nodes[i].phase; {
		case p == phAway || p == phDialing && c.started || p == phAsked && c.started && !c.nodes[i].contact.busy:
			away++
		case p != phFinal:
			return
		}
	}
	for i := 1; i < len(c.nodes) && away > 0; i++ {
		switch n := &c.nodes[i]; {
		case n.phase == phFinal:
		case n.phase == phAsked:
			c.end(i, Unreachable, unanswered)
		case n.contact.met:
			c.end(i, Failed, n.row.Cause)
		default:
			c.unanswered(i)
		}
	}
	c.finish(nil)
}

// unanswered makes the row of a node final that never answered.
func (c *Machine) unanswered(i int) {
	n := &c.nodes[i]
	c.end(i, Unreachable, n.row.Cause.orCause(Cause{Kind: KindContact, Fault: FaultSilent, Text: "no answer from ", Addr: n.dials}))
}

func (c *Machine) finish(err error) {
	if c.finished {
		return
	}
	c.finished = true
	for i := 1; i < len(c.nodes); i++ {
		c.tell(i, &wire.Bye{})
	}
	c.do(ActFinish{err})
}
