package coordinator

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// This file notices when nothing happens, which nobody reports. A node that is alive and owes something must not hold up
// the others, or the end of the transfer (PROTOCOL.md section 9).

// maxLost is how many links into a node may be lost before the server gives the node up.
const maxLost = 50

// leastRate is how many bytes per second a link must carry to count as slow and not as lost. A node that others wait for
// must get on as fast. At this rate the smallest usual frame takes as long as a link may stand still, and the largest
// one takes about as long as a node may hang.
const leastRate = 16 << 10

// leastStep is how many bytes a link carries at that rate in timings.hung.
const leastStep = 60 * leastRate

func (c *Machine) tick(passed time.Duration) {
	if !c.started && !c.plans() {
		return
	}
	for i := 1; i < len(c.nodes); i++ {
		if n := &c.nodes[i]; n.phase == phAsked && c.now-n.contact.asked >= timings.answer && !c.cfg.Check {
			c.end(i, Failed, unanswered)
		}
	}
	if !c.started {
		return
	}
	if c.lookAround(); c.cfg.Check {
		return
	}
	c.judgeSuspects()
	for i := 1; i < len(c.nodes); i++ {
		switch n := &c.nodes[i]; {
		case n.phase == phServing && n.contact.alive:
			c.watch(i, passed)
		case n.phase == phCommitting && n.contact.alive && c.now-n.commit.since >= c.commitLimit():
			c.end(i, Failed, because(KindUnconfirmed, "commit not confirmed: no answer for %v", c.commitLimit()))
		}
	}
	if c.now-c.speeds.judged >= timings.slowEvery {
		c.speeds.begin(c.now)
		c.judgeSpeed()
	}
}

// commitLimit is how long a node may take to answer COMMIT. It is shorter once the transfer was interrupted.
func (c *Machine) commitLimit() time.Duration {
	if c.interrupted {
		return ConfirmFor
	}
	return timings.verify
}

// watch looks after a node that is served. What the node says about itself only ever counts against it: see the rule in
// PROTOCOL.md section 9. Passed is the time since the last call.
func (c *Machine) watch(i int, passed time.Duration) {
	n := &c.nodes[i]
	still := c.now - n.progress.moved
	asked := c.now - n.feed.asked
	switch {
	case n.progress.gotOn():
		n.progress.step(c.now)
		n.feed.gotOn()
	case c.delays(i) && (c.excused(i) || c.isAhead(i)):
		n.progress.excuse(passed)
	case c.delays(i):
	case c.caughtUp(i):
		n.progress.rest(c.now)
	default:
		n.progress.pause(c.now, passed)
	}
	switch {
	case min(still, c.now-n.progress.told) >= timings.report:
		c.end(i, Failed, because(KindMute, "does not report for %v", timings.report))
	case n.feed.state == feedAsked && asked >= timings.hung:
		c.end(i, Failed, because(KindMute, "does not say what it needs for %v", timings.hung))
	case n.feed.state == feedAsked && asked >= timings.mute && !n.feed.passed:
		c.passOver(i)
	case n.feed.state == feedAsked && asked >= timings.stalled:
		c.undial(n) // so that no window is held any longer for this node
	case n.feed.state == feedDialled && asked >= timings.mute:
		if n.feed.feeder != 0 {
			n.tries.shun(n.feed.feeder) // the feeder owes an answer, whatever else it says
		}
		c.giveUp(i, fmt.Sprintf("not dialled within %v", timings.mute))
	case still >= timings.verify && c.wasSent(i):
		c.end(i, Failed, because(KindStuck, "has been sent everything, and does not verify for %v", timings.verify))
	case c.now-n.progress.owes >= timings.verify && c.wasSent(i):
		c.end(i, Failed, because(KindStuck, "has been sent everything, and gets on by less than %d KiB in %v", leastStep>>10, timings.verify))
	case c.now-n.progress.owes >= timings.hung && (c.namesOwn(i) || !c.wasSent(i)):
		c.crawls(i)
	case min(still, c.now-n.progress.owes) >= timings.held && c.holds(i):
		if n.feed.feeder != 0 && c.now-n.progress.saidAt < timings.held {
			c.dispute(i)
			return
		}
		c.end(i, Failed, because(KindStuck, "takes nothing of what it is sent for %v, and nobody holds it up", timings.held))
	default:
		c.watchFeed(i, still)
	}
}

// watchFeed looks after the link into a node that waits for bytes.
func (c *Machine) watchFeed(i int, still time.Duration) {
	n := &c.nodes[i]
	switch {
	case n.progress.report.Wait != wire.WaitIn || min(still, c.now-n.feed.tried) < timings.stalled:
	case c.stalled(i, still):
		c.giveUp(i, fmt.Sprintf("nothing moved for %v", timings.stalled))
	case n.feed.state == feedDone && n.holdings.lacks:
		n.feed.earlyAt(c.now) // the node said done, or that it needs nothing
		c.relink(i)
	}
}

// giveUp takes the link into i for lost.
func (c *Machine) giveUp(i int, reason string) {
	c.nodes[i].feed.tryAt(c.now) // so that the next link has its full time
	c.linkDown(i, c.linkName(i), EvLink{Node: i, Code: wire.CodeNetwork, Reason: reason})
}

// delays reports whether i has something to get on with. That is so if it says that it waits for its own storage,
// processor or rate limit, or if its feeder has something to send or has sent everything.
func (c *Machine) delays(i int) bool {
	return c.namesOwn(i) || c.busyInto(i) || c.wasSent(i) || c.feederEnded(i)
}

// isAhead reports whether i has taken more than the server has read so far, from others that had it before. It may then have
// to wait for the server's sums. What its feeder says it took has headers and what TLS adds in it, and does not count
// in full: a node that takes nothing more of what the server has read must not count as ahead. What only the node itself
// says does not count at all. Its feeder may lie for it. So this excuses it no longer than the server is held up, which is
// timings.hung at most for each node that does so; and those that feed it are excused by it, as if it was not ahead.
func (c *Machine) isAhead(i int) bool {
	n, server := &c.nodes[i], c.nodes[0].progress.report
	if c.sourceDone || n.taken.guessed || server.Blob == 0 && server.Good == 0 || c.now-c.nodes[0].progress.goodAt >= timings.hung {
		return false
	}
	took := c.received(i, n.progress.report.Received)
	return took-took/64 > n.holdings.lackedBefore(c.sizes, server.Blob, server.Good)*int64(1+n.blame.falls)
}

// caughtUp reports whether i has taken all that its feeder had for it. The feeder has to say so in two reports in a row.
func (c *Machine) caughtUp(i int) bool {
	l, ok := c.linkInto(i)
	f := c.nodes[i].feed.feeder
	return ok && l.Idle && slices.ContainsFunc(c.nodes[f].progress.links, func(old wire.Sending) bool { return old.Link == l.Link && old.Idle })
}

// namesOwn reports whether i says that it waits for its own storage, processor or rate limit.
func (c *Machine) namesOwn(i int) bool {
	switch c.nodes[i].progress.report.Wait {
	case wire.WaitDisk, wire.WaitCPU, wire.WaitLimit:
		return true
	}
	return false
}

// wasSent reports whether i was sent everything, as it says itself, and only has to verify it. It has timings.verify
// for that, unless it says that it waits for something of its own.
func (c *Machine) wasSent(i int) bool {
	n := &c.nodes[i]
	return c.sourceDone && (n.feed.state == feedDone || !n.holdings.lacks)
}

// feederEnded reports whether the feeder of i has everything, or said so when it last got on. Such a feeder waits for
// nobody.
func (c *Machine) feederEnded(i int) bool {
	n := &c.nodes[i]
	if n.feed.state != feedUp {
		return false
	}
	if n.feed.feeder == 0 {
		return c.sourceDone
	}
	return c.nodes[n.feed.feeder].phase >= phVerified || c.sourceDone && c.nodes[n.feed.feeder].feed.sated
}

// holds reports whether i holds up the link into it, by the word of its feeder, and does not say that it waits for
// something of its own.
func (c *Machine) holds(i int) bool {
	switch c.nodes[i].progress.report.Wait {
	case wire.WaitOut, wire.WaitUnknown:
		l, ok := c.linkInto(i)
		return ok && l.Held && !c.excused(i)
	}
	return false
}

// excused reports whether another node confirms that i waits for those that it feeds. That is a node which i was ordered
// to feed, whose link may hold the window of i, and which has had something to get on with for a while. Such a node may
// say that it gets on, and take nothing from i: then its own time ends. A link that nobody ordered excuses nothing.
func (c *Machine) excused(i int) bool {
	return c.nodes[i].progress.report.Wait == wire.WaitOut &&
		c.feeds(i, func(j int) bool { return c.now-c.nodes[j].progress.busy >= timings.stalled })
}

// feeds reports whether i was ordered to feed a node that it may have to wait for: the link into that node is not up yet,
// or which returns true for the node.
func (c *Machine) feeds(i int, which func(j int) bool) bool {
	return slices.ContainsFunc(c.order, func(j int) bool {
		n := &c.nodes[j]
		return n.phase == phServing && !n.pace.slow && n.feed.ownedBy(i) && (n.feed.state != feedUp || which(j))
	})
}

// crawls deals with a node that has not got on for timings.hung, though others wait for it. If it waits for bytes that its
// feeder has, the feeder may be the one that sends hardly anything. So the link is given up before the node is,
// unless the server is the feeder.
func (c *Machine) crawls(i int) {
	n := &c.nodes[i]
	f := n.feed.feeder
	if f != 0 && n.feed.linked() && n.progress.saysMore() {
		c.dispute(i)
		return
	}
	n.progress.rest(c.now)
	if n.progress.report.Wait == wire.WaitIn && f != 0 {
		n.tries.shun(f)
		c.giveUp(i, fmt.Sprintf("less than %d KiB moved in %v", leastStep>>10, timings.hung))
		return
	}
	c.end(i, Failed, because(KindStuck, "hangs: less than %d KiB were stored in %v (%s)", leastStep>>10, timings.hung, cmp.Or(string(n.progress.report.Wait), "does not read")))
}

// passOver moves a node to the end of the order, where nobody waits for it, because it does not say what it needs.
func (c *Machine) passOver(i int) {
	n := &c.nodes[i]
	n.feed.passOver()
	c.undial(n)
	c.handOver(i)
	at := slices.Index(c.order, i)
	c.order = append(slices.Delete(c.order, at, at+1), i)
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
	case c.now-n.progress.saidAt < timings.stalled && f.progress.told <= n.progress.saidAt:
		// The node says that it gets on, and nobody denies it: its feeder, which may stand still, has not reported since.
		return false
	case ok && l.Rate >= leastRate && still < timings.stalled+frameTime(l.Rate) && c.now-f.progress.told < timings.stalled:
		// Part of a frame may be arriving, which the receiver does not report. Frames have the size that suits the rate of
		// the chain, and a slow link takes longer for one of 1 MiB. The feeder is believed for as long as a frame takes at
		// the rate that it reports.
		return false
	case n.feed.feeder > 0 && f.phase >= phVerified:
		// The feeder has everything, waits for nothing, and reports no more. If it got the last bytes just now, i may not
		// have reported yet that it gets them, too.
		return n.progress.told-f.progress.moved >= ReportEvery
	case !ok:
		// The feeder has sent everything and closed it. If it got the last bytes just now, i may not have reported yet.
		return n.feed.feeder == 0 || !c.wasSent(n.feed.feeder) || n.progress.told-f.progress.moved >= ReportEvery
	case !l.Idle:
		// The feeder has to say so twice in a row, so that i has reported in between that nothing came. What is on its way
		// only now, after a fault further up, is no stall.
		return slices.ContainsFunc(f.progress.links, func(old wire.Sending) bool { return old.Link == l.Link && isBusy(old) })
	}
	// The feeder says that it has nothing to send, though it has more than its receiver.
	return n.feed.feeder > 0 && still >= timings.held &&
		(f.feed.state == feedDone || after(f.progress.report.Blob, f.progress.report.Good, n.progress.report.Blob, n.progress.report.Good))
}

// frameTime is how long the largest frame takes at a rate in bytes per second.
func frameTime(rate int64) time.Duration {
	return time.Duration(wire.MaxPayload * int64(time.Second) / rate)
}

func isBusy(l wire.Sending) bool { return !l.Idle }
