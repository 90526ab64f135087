package coordinator

import "time"

// Slow nodes (SLOW.md): judged by what each could carry, as its own
// measurements and those of its feeder tell, never by how fast the chain runs.

// judgeSpeed looks for the outlier, and calls it slow when enough looks in a row found it and moving it helps.
func (c *Machine) judgeSpeed() {
	c.measure()
	judges := c.cfg.Straggler != Wait && !c.interrupted
	if judges {
		c.review()
	}
	o := c.findOutlier()
	c.speeds.look(o)
	if !judges {
		return
	}
	if !c.helps(o) {
		o.who = 0
	}
	for i := range c.nodes {
		if i != o.who {
			c.nodes[i].pace.pass()
		}
	}
	n := &c.nodes[o.who]
	if o.who == 0 || !n.pace.look(!o.unsure) {
		return
	}
	if f := n.feed.feeder; o.cause.isLink() && c.nodes[f].pace.slowed != 0 && c.nodes[f].pace.slowed != o.who {
		c.feederSlow(f, o.who, o.rate, o.cause)
	} else {
		c.straggles(o.who, o.rate, o.cause)
	}
}

// helps says whether moving the outlier would help: there are others who would go on faster, and it saves enough
// time. Behind a slow link of the server nobody can tell whose fault it is, so there it must take long as well.
func (c *Machine) helps(o outlier) bool {
	served := 0
	for _, i := range c.order {
		if c.competes(i) {
			served++
		}
	}
	if o.who == 0 || served < 2 {
		return false
	}
	n := &c.nodes[o.who]
	left, ok := n.holdings.left(c.blobs, n.progress.report.Received)
	if !ok {
		return true // nobody knows how much there is to come
	}
	takes := time.Duration(float64(left) / float64(o.rate) * float64(time.Second))
	could := time.Duration(float64(left) / float64(o.median) * float64(time.Second))
	return takes-could > timings.slowSaves && (!o.cause.isLink() || n.feed.feeder != 0 || takes > timings.slowServer)
}

// feederSlow calls a feeder slow when the second node that it feeds has a slow link, too. Then the way out of the
// feeder is at fault, and the first node was moved in vain. If another feeder was called slow for about the same
// rate, all links are like that, and no feeder is slow.
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

// maxCleared is how often a node that was called slow may turn out not to be. After that it is not judged again.
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
		case n.pace.another && n.feed.state == feedUp && n.progress.gets() >= 2*n.pace.rate && !c.outdone(i, n.progress.gets()): // it was that link
			c.isNotSlow(i, "it gets "+megabytes(n.progress.gets())) // which speaks against the feeder of that link yet
		case checked && 3*n.pace.rate >= 2*median:
			c.exonerate(i, "others carry "+megabytes(median))
		case c.cfg.Straggler == Drop && (c.hasShown(i) && c.allAwait(i) || c.feederHasShown(i) && c.outdone(i, n.pace.rate)):
			n.row.Link = n.pace.why.Link
			c.end(i, Failed, n.pace.why)
		}
	}
}

// hasShown says whether a slow node has had the time to show that it is not, in two reports of what its new feeder
// brings. It may not put that off by having no link.
func (c *Machine) hasShown(i int) bool { return c.hasHad(i, timings.slowShows) }

// feederHasShown says the same, and, where a link was slow, whether the feeder of that link has had the time to be slow for
// the next node, too.
func (c *Machine) feederHasShown(i int) bool {
	if c.nodes[i].pace.why.Link != "" {
		return c.hasHad(i, 2*timings.slowShows)
	}
	return c.hasShown(i)
}

// hasHad says whether slow node i has had its new link for so long, or could have had it for twice that.
func (c *Machine) hasHad(i int, wait time.Duration) bool {
	n := &c.nodes[i]
	return n.feed.state == feedUp && c.now-n.feed.up >= wait || c.now-n.pace.since >= 2*wait
}

// allAwait says whether all but slow nodes have everything, and i, which is slow, would hold up the end of the
// transfer. Some may have got everything before two reports told how fast.
func (c *Machine) allAwait(i int) bool {
	n := &c.nodes[i]
	if !c.takesLong(i, max(n.pace.rate, n.progress.gets())) {
		return false
	}
	ended := false
	for j := 1; j < len(c.nodes); j++ {
		o := &c.nodes[j]
		switch {
		case o.phase == phServing && !o.pace.slow:
			return false
		case o.phase == phVerified || o.phase == phCommitting || o.row.State.Good():
			ended = true
		}
	}
	return ended
}

// takesLong says whether what i lacks takes it longer, at so many bytes per second, than moving a node must save.
func (c *Machine) takesLong(i int, rate int64) bool {
	n := &c.nodes[i]
	left, ok := n.holdings.left(c.blobs, n.progress.report.Received)
	return !ok || float64(left) > float64(rate)*timings.slowSaves.Seconds()
}

// exonerate takes back that a node is slow: it was moved in vain.
func (c *Machine) exonerate(i int, why string) {
	n := &c.nodes[i]
	c.forgetSlowed(i)
	if n.pace.slow && n.phase == phServing {
		c.isNotSlow(i, why)
	}
}

// isNotSlow has a node that was called slow go on like all others.
func (c *Machine) isNotSlow(i int, why string) {
	n := &c.nodes[i]
	if n.note.Kind == KindSlow { // else something else has happened to it since
		n.note, n.row.Link = Cause{}, ""
	}
	n.pace.clear()
	c.event(i, Serving, because(KindSlow, "is not slow: %s", why))
	if n.contact.alive && n.feed.linked() {
		c.relink(i) // without the lag
	}
}

// forgetSlowed no longer counts the slow link into i against its feeder.
func (c *Machine) forgetSlowed(i int) {
	for f := range c.nodes {
		if c.nodes[f].pace.slowed == i {
			c.nodes[f].pace.slowedNode(0)
		}
	}
}

// straggles moves a slow node to the end of the order. With Drop, review fails it later: once another node was seen to
// get twice as much, or all others have ended.
func (c *Machine) straggles(i int, rate int64, cause limiter) {
	n := &c.nodes[i]
	n.row.Link = "" // of whatever its note said before
	if cause.isLink() {
		n.row.Link = c.linkName(i)
		c.nodes[n.feed.feeder].pace.slowedNode(i)
	}
	n.pace.call(c.now, rate, Cause{Kind: KindSlow, Link: n.row.Link, Text: "slow: " + cause.String() + " " + megabytes(rate)}, cause.isLink() || cause.arrives)
	for j := range c.nodes {
		c.nodes[j].progress.compareAnew()
	}
	n.note = n.pace.why.demoted()
	c.event(i, Serving, n.note)
	c.toTail(i)
}
