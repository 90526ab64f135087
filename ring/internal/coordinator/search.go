package coordinator

import (
	"fmt"
	"slices"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// Which nodes can reach which others (PROTOCOL.md section 8, "Nodes that cannot reach each other").

const (
	// maxProbes is how many nodes are asked at once whether they reach a node, the nearest ones.
	maxProbes = 16
	// maxUnderWay bounds the probes of all searches together. Many links at once cannot be opened where machines are
	// overloaded, and each probe is more of that load. A node that nobody can be asked about gets another feeder, and
	// another, as if the nodes could not be asked.
	maxUnderWay = 256
	// maxSearches is how often that is done for a node: links that come and go must not prolong the transfer.
	maxSearches = 3
)

// search is which nodes are being asked whether they reach others.
type search struct {
	probes []probe // under way
	next   uint32
	since  time.Duration // of a check: when the nodes were asked whom they reach
}

// add notes a PROBE to from about to, and returns its number.
func (s *search) add(from, to int) uint32 {
	s.next++
	s.probes = append(s.probes, probe{s.next, from, to})
	return s.next
}

// answered ends the probe that ev answers; ok is false when there is none.
func (s *search) answered(ev EvProbed) (p probe, ok bool) {
	k := slices.IndexFunc(s.probes, func(p probe) bool { return p.id == ev.Probe && p.from == ev.Node })
	if k < 0 {
		return probe{}, false
	}
	p = s.probes[k]
	s.probes = slices.Delete(slices.Clone(s.probes), k, k+1)
	return p, true
}

// towards counts the probes towards i that are under way.
func (s *search) towards(i int) (count int) {
	for _, p := range s.probes {
		if p.to == i {
			count++
		}
	}
	return count
}

// asks says whether node i is being asked about others.
func (s *search) asks(i int) bool {
	return slices.ContainsFunc(s.probes, func(p probe) bool { return p.from == i })
}

// drop forgets the probes towards i that are under way.
func (s *search) drop(i int) {
	s.probes = slices.DeleteFunc(slices.Clone(s.probes), func(p probe) bool { return p.to == i })
}

// dropAll forgets the probes towards i and those that i was asked to do, and lists the nodes that the latter were about.
func (s *search) dropAll(i int) (about []int) {
	s.probes = slices.DeleteFunc(slices.Clone(s.probes), func(p probe) bool {
		if p.from == i {
			about = append(about, p.to)
		}
		return p.from == i || p.to == i
	})
	return about
}

// begin notes when a check asked all nodes, which it does at once.
func (s *search) begin(now time.Duration) { s.since = now }

// probe is a PROBE that was not answered yet.
type probe struct {
	id       uint32
	from, to int
}

// mayFeed says whether node j may feed node i. It does not look at whether j reaches i.
func (c *Machine) mayFeed(j, i int) bool {
	f, n := &c.nodes[j], &c.nodes[i]
	return f.contact.alive && !f.pace.slow && !f.reach.parked && !f.blame.banned && f.phase >= phServing &&
		!n.blame.with(j) && (!n.pace.slow || f.holdings.replays && f.pace.slowed != i)
}

// above lists the nodes before i in the order that may feed it, the nearest first.
func (c *Machine) above(i int) (all []int) {
	for k := slices.Index(c.order, i) - 1; k >= 0; k-- {
		if j := c.order[k]; c.mayFeed(j, i) {
			all = append(all, j)
		}
	}
	return all
}

// notDialled is called when a feeder could not open the link into i for the second time. All nodes that might feed
// i are asked at once, because trying one after the other would take the time of a dial for each.
func (c *Machine) notDialled(i, feeder int, why string) {
	n := &c.nodes[i]
	asked := 0
	if n.reach.searches < maxSearches {
		asked = c.ask(i, func(j int) bool { return !n.reach.isCut(j) })
	}
	if asked == 0 || c.nodes[feeder].contact.version < 2 {
		n.reach.note(feeder, why)
	}
	if asked == 0 {
		n.tries.shun(feeder)
		return
	}
	n.reach.begin(c.now)
}

// ask sends a PROBE about i to the nodes that may feed it and for which want is true: to the nearest ones, at most
// maxProbes, while no more than maxUnderWay are under way. It returns how many are asked.
func (c *Machine) ask(i int, want func(j int) bool) (asked int) {
	for _, j := range c.above(i) {
		if c.nodes[j].contact.version >= 2 && asked < maxProbes && len(c.search.probes) < maxUnderWay && want(j) {
			asked++
			c.probe(j, i)
		}
	}
	return asked
}

// park moves i, which no node reaches and which the server may not feed, to the end of the order, where it
// feeds nobody. It is searched for once more after timings.parked.
func (c *Machine) park(i int, why string) {
	n := &c.nodes[i]
	n.reach.park(c.now)
	c.event(i, Serving, because(KindUnreached, "%s: all are asked again in %v", why, timings.parked))
	c.toTail(i)
}

// searchAgain asks all nodes about a parked node, including those that could not reach it before.
func (c *Machine) searchAgain(i int) {
	c.nodes[i].reach.begin(c.now)
	if c.ask(i, func(int) bool { return true }) == 0 {
		c.settle(i)
	}
}

// probe asks node from whether it reaches node to.
func (c *Machine) probe(from, to int) {
	c.do(ActProbe{from, to, c.search.add(from, to)})
}

func (c *Machine) probed(ev EvProbed) {
	p, ok := c.search.answered(ev)
	if !ok {
		return
	}
	r := &c.nodes[p.to].reach
	if ev.Code != wire.CodeNone {
		r.note(p.from, ev.Reason)
	} else if r.found == 0 || slices.Index(c.order, p.from) > slices.Index(c.order, r.found) {
		r.foundBy(p.from)
	}
	switch {
	case c.cfg.Check && len(c.search.probes) == 0:
		c.endCheck()
	case r.search && c.search.towards(p.to) == 0:
		c.settle(p.to)
	}
}

// settle ends the search for a feeder of i with what is known by now. A node that has not answered in time may
// still be able to reach i.
func (c *Machine) settle(i int) {
	n := &c.nodes[i]
	answered := c.search.towards(i) == 0
	c.search.drop(i)
	n.reach.end()
	if n.reach.found == 0 && answered && len(n.reach.cut) > 0 && len(c.above(i)) > 0 && !c.onlyServer(i) {
		return
	}
	if n.reach.waits && n.feed.state == feedAsked {
		c.feedFrom(i)
	}
}

// cutOff says whether all nodes that may feed i are known to be unable to reach it. maxAvoid of them are enough,
// because nodes of version 1 cannot be asked.
func (c *Machine) cutOff(i int) bool {
	n := &c.nodes[i]
	above := c.above(i)
	return len(above) > 0 && len(n.reach.cut) > 0 && (len(n.reach.cut) >= maxAvoid ||
		!slices.ContainsFunc(above, func(j int) bool { return !n.reach.isCut(j) }))
}

// onlyServer notes that no node reaches i, and says whether the server may feed it. If the server feeds enough such
// nodes already, it may not: i is parked the first time and fails the next time. Otherwise the chain would become a
// star.
func (c *Machine) onlyServer(i int) bool {
	n := &c.nodes[i]
	others := 0
	for k := range c.nodes {
		if o := &c.nodes[k]; k != i && o.reach.only && (o.phase < phFinal || o.row.State.Good()) {
			others++
		}
	}
	why := fmt.Sprintf("no node reaches it on port %s (%s)", n.port, n.reach.nearest(i).why)
	if c.cfg.MaxDirect != 0 && others >= max(c.cfg.MaxDirect, 0) {
		why = fmt.Sprintf("%s, and the server feeds %d such nodes itself already", why, others)
		if !n.reach.again {
			c.park(i, why)
			return false
		}
		n.reach.leave()
		n.note, n.row.Link = Cause{}, ""
		c.end(i, Failed, because(KindUnreached, "%s", why))
		return false
	}
	if !n.reach.only {
		n.reach.serverOnly()
		c.do(ActLink{Link: "server -> " + n.name, Reason: "stands in: " + why})
	}
	return true
}

// dropProbes forgets the probes of a node that is gone, and ends the searches that waited for them.
func (c *Machine) dropProbes(i int) {
	waited := c.search.dropAll(i)
	c.nodes[i].reach.end()
	for j := range c.nodes {
		if !c.nodes[i].reach.left { // that is no reason to forget what it could not reach
			c.nodes[j].reach.forget(i)
		}
	}
	for _, j := range waited {
		if c.nodes[j].reach.search && c.search.towards(j) == 0 {
			c.settle(j)
		}
	}
}

// lookAround ends the searches that have found a feeder or whose time is over, and the probes of a check.
func (c *Machine) lookAround() {
	for i := range c.nodes {
		r := &c.nodes[i].reach
		switch {
		case r.search && (r.found != 0 || c.now-r.since >= timings.probed):
			c.settle(i)
		case r.parked && c.now-r.since >= timings.parked:
			c.searchAgain(i)
		}
	}
	if c.cfg.Check && c.now-c.search.since >= timings.probed {
		c.endCheck()
	}
}

// checkWays asks each node that answered whether it reaches the node before it and the node behind it.
func (c *Machine) checkWays() {
	c.search.begin(c.now)
	before := 0
	for i := 1; i < len(c.nodes); i++ {
		if c.nodes[i].phase != phReady {
			continue
		}
		if before > 0 {
			for _, p := range [][2]int{{before, i}, {i, before}} {
				if c.nodes[p[0]].contact.version >= 2 {
					c.probe(p[0], p[1])
				}
			}
		}
		before = i
	}
	if len(c.search.probes) == 0 {
		c.endCheck()
	}
}

// Unreached lists which nodes could not reach which others. It leaves out nodes that did not last to the end.
func (c *Machine) Unreached() (all []Unreached) {
	for i := range c.nodes {
		n := &c.nodes[i]
		cut := n.reach.cut
		switch {
		case len(cut) == 0 || !c.cfg.Check && !n.reach.left && !n.row.State.Good():
			continue
		case !c.cfg.Check: // one for each is enough
			cut = []cutFrom{n.reach.nearest(i)}
		}
		for _, f := range cut {
			all = append(all, Unreached{f.node, i, n.port, f.why})
		}
	}
	return all
}

// Unprobed lists the nodes of a check that could not say whom they reach.
func (c *Machine) Unprobed() (all []int) {
	for i := 1; i < len(c.nodes); i++ {
		n := &c.nodes[i]
		if c.cfg.Check && n.holdings.known && (n.contact.version < 2 || c.search.asks(i)) {
			all = append(all, i)
		}
	}
	return all
}

// Direct counts the nodes that the server fed itself because no node reached them.
func (c *Machine) Direct() (count int) {
	for i := range c.nodes {
		if n := &c.nodes[i]; n.reach.only && n.row.State.Good() {
			count++
		}
	}
	return count
}
