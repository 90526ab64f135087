package coordinator

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// What nobody reports: that nothing happens. A node that is alive and owes something
// must not hold the others, or the end, up (PROTOCOL.md section 9).

// maxLost is how many links into a node may be lost before it is given up.
const maxLost = 50

// leastRate is how many bytes per second a link must carry so that it is only slow: the smallest usual frame in the
// time after which nothing moves on it. A frame of the largest size takes it about as long as a node may hang.
const leastRate = 16 << 10

func (c *Machine) tick() {
	if !c.started {
		return
	}
	if c.lookAround(); c.cfg.Check {
		return
	}
	c.judgeSuspects()
	for i := 1; i < len(c.nodes); i++ {
		switch n := &c.nodes[i]; {
		case n.phase == phAsked && c.now-n.contact.asked >= timings.answer:
			c.end(i, Failed, unanswered)
		case n.phase == phServing && n.contact.alive:
			c.watch(i)
		case n.phase == phCommitting && n.contact.alive && c.now-n.commit.since >= c.commitLimit():
			c.end(i, Failed, because(KindUnconfirmed, "commit not confirmed: no answer for %v", c.commitLimit()))
		}
	}
	if c.now-c.speeds.judged >= timings.slowEvery {
		c.speeds.begin(c.now)
		c.judgeSpeed()
	}
}

// commitLimit is how long a COMMIT may take; who has interrupted waits less.
func (c *Machine) commitLimit() time.Duration {
	if c.interrupted {
		return ConfirmFor
	}
	return timings.verify
}

// watch looks after a node that is served.
func (c *Machine) watch(i int) {
	n := &c.nodes[i]
	still := c.now - n.progress.moved
	waits := n.progress.report.Wait == wire.WaitIn && min(still, c.now-n.feed.tried) >= timings.stalled
	asked := c.now - n.feed.asked
	switch {
	case min(still, c.now-n.progress.told) >= timings.report:
		c.end(i, Failed, because(KindMute, "does not report for %v", timings.report))
	case n.feed.state == feedAsked && asked >= timings.hung:
		c.end(i, Failed, because(KindMute, "does not say what it needs for %v", timings.hung))
	case n.feed.state == feedAsked && asked >= timings.stalled:
		c.undial(n) // nobody's window stands for it any longer
	case n.feed.state == feedDialled && asked >= timings.dialled:
		c.giveUp(i, fmt.Sprintf("not dialled within %v", timings.dialled))
	case waits && c.stalled(i, still):
		c.giveUp(i, fmt.Sprintf("nothing moved for %v", timings.stalled))
	case waits && n.feed.state == feedDone && n.holdings.lacks:
		n.feed.earlyAt(c.now) // it said done, or that it needs nothing
		c.relink(i)
	case still >= timings.hung && c.hangs(i):
		c.end(i, Failed, because(KindStuck, "hangs: nothing was stored for %v (%s)", timings.hung, cmp.Or(string(n.progress.report.Wait), "does not read")))
	case still >= timings.verify && c.sourceDone && (n.feed.state == feedDone || !n.holdings.lacks):
		c.end(i, Failed, because(KindStuck, "has been sent everything, and does not verify for %v", timings.verify))
	}
}

// giveUp takes the link into i for lost.
func (c *Machine) giveUp(i int, reason string) {
	c.nodes[i].feed.tryAt(c.now) // the next one has its own time
	c.linkDown(i, c.linkName(i), EvLink{Node: i, Code: wire.CodeNetwork, Reason: reason})
}

// hangs says whether i waits for itself: for its storage or its processor, or though it
// is sent something and nobody holds it up.
func (c *Machine) hangs(i int) bool {
	n := &c.nodes[i]
	switch n.progress.report.Wait {
	case wire.WaitDisk, wire.WaitCPU:
		return true
	case wire.WaitOut:
		if slices.ContainsFunc(n.progress.report.Links, isBusy) {
			return false
		}
	case wire.WaitIn, wire.WaitLimit:
		return false
	}
	l, ok := c.linkInto(i)
	return ok && n.feed.state == feedUp && isBusy(l)
}

// stalled reports whether the link into i should carry something and does not.
func (c *Machine) stalled(i int, still time.Duration) bool {
	n := &c.nodes[i]
	if n.feed.state != feedUp || c.now-n.feed.up < timings.stalled {
		return false
	}
	f := &c.nodes[n.feed.feeder]
	l, ok := c.linkInto(i)
	switch {
	case ok && l.Rate >= leastRate && still < timings.hung && c.now-f.progress.told < timings.stalled:
		// A part of a frame arrives, of which the receiver does not tell: frames suit the rate of the chain, and
		// one of 1 MiB takes a slow link longer.
		return false
	case n.feed.feeder > 0 && f.phase >= phVerified:
		// It has everything, waits for nothing, and reports no more. If it got that just now,
		// i may not have told yet that it gets it, too.
		return n.progress.told-f.progress.moved >= ReportEvery
	case !ok:
		return true // the feeder has sent everything and closed it
	case !l.Idle:
		// Told twice in a row, so that i has told in between that nothing came: what is
		// only now on its way, after a fault further up, is no stall.
		return slices.ContainsFunc(f.progress.links, func(old wire.Sending) bool { return old.Link == l.Link && isBusy(old) })
	}
	// A feeder that says it has nothing to send, and has more than its receiver.
	return n.feed.feeder > 0 && still >= timings.dialled &&
		(f.feed.state == feedDone || after(f.progress.report.Blob, f.progress.report.Good, n.progress.report.Blob, n.progress.report.Good))
}

func isBusy(l wire.Sending) bool { return !l.Idle }
