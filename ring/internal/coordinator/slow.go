package coordinator

import (
	"time"
)

// Slow nodes (SLOW.md): judged by what each could carry, as its own
// measurements and those of its feeder tell, never by how fast the chain runs.

// judgeSpeed looks for the one node that holds the others up.
func (c *Machine) judgeSpeed() {
	c.measure() // also for who asks for the bottleneck
	if c.cfg.Straggler == Wait || c.interrupted {
		return
	}
	c.review()
	slowest, least, cause := c.slowest()
	median, _ := c.median(slowest)
	sure := true
	if slowest != 0 && !c.worth(slowest, least, median, cause) {
		slowest = 0
	} else if cause.isLink() {
		if slowest, sure = c.sameCable(slowest, least, median); slowest != 0 {
			least, cause = c.capacity(slowest)
		}
	}
	for i := range c.nodes {
		n := &c.nodes[i]
		if i != slowest || slowest == 0 {
			n.pace.pass()
			continue
		}
		if !n.pace.look(sure) {
			continue
		}
		if f := n.feed.feeder; cause.isLink() && c.nodes[f].pace.slowed != 0 && c.nodes[f].pace.slowed != i {
			c.feederSlow(f, i, least, cause)
		} else {
			c.straggles(i, least, cause)
		}
		return
	}
}

// feederSlow calls a feeder slow when the second node that it feeds has a slow link, too: the fault is its way
// out, and the first one was moved in vain. If another feeder was called slow for the same rate, nobody's link is
// slow.
func (c *Machine) feederSlow(f, i int, rate int64, cause limiter) {
	n, text := &c.nodes[f], megabytes(rate)
	c.exonerate(n.pace.slowed, cause.String()+" "+text+", too")
	n.pace.slowedNode(0)
	for p := range c.nodes {
		if o := &c.nodes[p]; f != 0 && p != f && o.pace.sends > 0 && 2*o.pace.sends < 3*rate && 2*rate < 3*o.pace.sends {
			c.speeds.share(max(rate, o.pace.sends))
			c.exonerate(p, n.name+" sends "+text+", too")
			return
		}
	}
	switch {
	case f == 0:
		c.speeds.serverIsSlow()
	case n.phase != phServing: // it has everything, and only stops feeding
		c.nodes[i].tries.shun(f)
		c.relink(i)
	default:
		n.pace.chokes(rate)
		c.straggles(f, rate, limiter{limit: limitSending})
	}
}

// slowest is who could carry least of those that others wait for; 0 is nobody.
func (c *Machine) slowest() (who int, least int64, cause limiter) {
	served := 0
	for _, i := range c.order {
		n := &c.nodes[i]
		if n.phase != phServing || !n.contact.alive || n.pace.slow {
			continue
		}
		served++
		if n.pace.cleared >= maxCleared || !c.holdsUp(i) {
			continue
		}
		if rate, why := c.capacity(i); rate > 0 && (who == 0 || rate < least) {
			who, least, cause = i, rate, why
		}
	}
	if served < 2 { // nobody would be helped
		return 0, 0, limiter{}
	}
	return who, least, cause
}

// maxCleared is how often who was called slow can turn out not to be: then it is let be.
const maxCleared = 2

// review looks again at those that were called slow, now that it is known better what others
// carry, and what they get from another feeder: they go on like all others, or are dropped if asked for.
func (c *Machine) review() {
	for i := range c.nodes {
		n := &c.nodes[i]
		if !n.pace.slow || n.phase != phServing || !n.contact.alive || n.feed.state == feedDone {
			continue
		}
		median, checked := c.median(i)
		switch {
		case n.pace.why.Link != "" && n.feed.state == feedUp && n.progress.gets() >= 2*n.pace.rate && !c.outdone(i, n.progress.gets()): // it was that link
			c.exonerate(i, "it gets "+megabytes(n.progress.gets()))
		case checked && 3*n.pace.rate >= 2*median:
			c.exonerate(i, "others carry "+megabytes(median))
		case c.cfg.Straggler == Drop && c.outdone(i, n.pace.rate):
			n.row.Link = n.pace.why.Link
			c.end(i, Failed, n.pace.why)
		}
	}
}

// holdsUp says whether others wait for i.
func (c *Machine) holdsUp(i int) bool { return c.nodes[i].feed.state == feedUp && c.waitedFor(i) }

// sameCable says whom a slow link into i speaks against: a bad cable slows the links at both
// its ends, and which one measures less is chance; so is it of a node that gets little processor. If the
// link into i's feeder is about as slow, it is the feeder, or 0 where moving that would not help. It is
// the feeder also if it was it in the look before, but then this is not sure, and holds for one look only.
func (c *Machine) sameCable(i int, rate, median int64) (who int, sure bool) {
	f := c.nodes[i].feed.feeder
	if f == 0 {
		return i, true
	}
	n := &c.nodes[f]
	if r, why := c.capacity(f); n.phase == phServing && n.contact.alive && !n.pace.slow && why.isLink() && 2*r < 3*rate && c.holdsUp(f) {
		if !c.worth(f, rate, median, why) {
			return 0, true
		}
		return f, true
	}
	if n.pace.seen > 0 && !n.pace.unsure {
		return f, false
	}
	return i, true
}

// worth says whether moving i, which could carry rate where others carry median, would help.
func (c *Machine) worth(i int, rate, median int64, cause limiter) bool {
	n := &c.nodes[i]
	if 2*rate >= median || cause.isLink() && n.feed.feeder == 0 && c.speeds.serverSlow {
		return false
	}
	left, ok := n.holdings.left(c.blobs, n.progress.report.Received)
	if !ok {
		return true // nobody knows how much there is to come
	}
	takes := time.Duration(float64(left) / float64(rate) * float64(time.Second))
	could := time.Duration(float64(left) / float64(median) * float64(time.Second))
	return takes-could > timings.slowSaves && (!cause.isLink() || n.feed.feeder != 0 || takes > timings.slowServer)
}

// exonerate takes back that a node is slow: it was moved in vain.
func (c *Machine) exonerate(i int, why string) {
	n := &c.nodes[i]
	c.forgetSlowed(i)
	if !n.pace.slow || n.phase != phServing {
		return
	}
	if n.note.Kind == KindSlow { // else something else has happened to it since
		n.note, n.row.Link = Cause{}, ""
	}
	n.pace.clear()
	c.event(i, Serving, because(KindSlow, "is not slow: %s", why))
	if n.contact.alive && n.feed.linked() {
		c.relink(i) // without the lag
	}
}

// forgetSlowed has node i speak against no feeder any more.
func (c *Machine) forgetSlowed(i int) {
	for f := range c.nodes {
		if c.nodes[f].pace.slowed == i {
			c.nodes[f].pace.slowedNode(0)
		}
	}
}

// straggles moves a slow node to the end. To fail it, where that was asked for, is for review: somebody
// else must be seen to get twice as much from then on.
func (c *Machine) straggles(i int, rate int64, cause limiter) {
	n := &c.nodes[i]
	n.row.Link = "" // of whatever its note said before
	if cause.isLink() {
		n.row.Link = c.linkName(i)
		c.nodes[n.feed.feeder].pace.slowedNode(i)
	}
	n.pace.call(rate, Cause{Kind: KindSlow, Link: n.row.Link, Text: "slow: " + cause.String() + " " + megabytes(rate)})
	for j := range c.nodes {
		c.nodes[j].progress.compareAnew()
	}
	n.note = n.pace.why.demoted()
	c.event(i, Serving, n.note)
	c.toTail(i)
}
