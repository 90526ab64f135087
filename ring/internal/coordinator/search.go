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
	// maxSearches is how often that is done for a node, which links that come and go must not prolong.
	maxSearches = 3
)

// reach is what the coordinator knows of the ways to a node from the others.
//
// While search is set, probes that lead to the node are under way, and no link into it is ordered: waits says
// that its NEED has come. found and cut are never the same node. only is never taken back while the node
// is served.
type reach struct {
	undialled int // links in a row that its feeder could not open
	search    bool
	since     time.Duration // when search was set
	waits     bool
	searches  int
	found     int       // the nearest node that reached it; 0: none is known
	cut       []cutFrom // those that could not
	only      bool      // only the server can feed it
	left      bool      // it failed, because the server feeds enough others already
}

type cutFrom struct {
	node int
	why  string
}

// search is which nodes are being asked whether they reach others.
type search struct {
	probes []probe // under way
	next   uint32
	since  time.Duration // of a check: when the nodes were asked whom they reach
}

// probe is a PROBE that was not answered yet.
type probe struct {
	id       uint32
	from, to int
}

func (r *reach) isCut(from int) bool {
	return slices.ContainsFunc(r.cut, func(c cutFrom) bool { return c.node == from })
}

func (r *reach) note(from int, why string) {
	if !r.isCut(from) {
		r.cut = append(r.cut, cutFrom{from, why})
	}
	if r.found == from {
		r.found = 0
	}
}

// nearest is, of those that cannot reach node i, the one that was asked for right before it.
func (r *reach) nearest(i int) cutFrom {
	best := r.cut[0]
	for _, c := range r.cut[1:] {
		if c.node < i && (c.node > best.node || best.node > i) {
			best = c
		}
	}
	return best
}

// forget is for a node that is gone: that nobody reached it, or it nobody, was its own fault.
func (r *reach) forget(from int) {
	r.cut = slices.DeleteFunc(slices.Clone(r.cut), func(c cutFrom) bool { return c.node == from })
	if r.found == from {
		r.found = 0
	}
}

// mayFeed says whether node j may feed node i, as far as anything but the way between them is
// concerned.
func (c *Machine) mayFeed(j, i int) bool {
	f := &c.nodes[j]
	return f.contact.alive && !f.pace.slow && !f.blame.banned && f.phase >= phServing && (!c.nodes[i].pace.slow || f.holdings.replays)
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

// notDialled is for a feeder that could not open the link into i, twice. All that might feed i are
// asked at once: to try one after the other would take the time of a dial for each.
func (c *Machine) notDialled(i, feeder int, why string) {
	n := &c.nodes[i]
	asked := 0
	for _, j := range c.above(i) {
		if c.nodes[j].contact.version >= 2 && !n.reach.isCut(j) && asked < maxProbes && n.reach.searches < maxSearches {
			asked++
			c.probe(j, i)
		}
	}
	if asked == 0 || c.nodes[feeder].contact.version < 2 {
		n.reach.note(feeder, why)
	}
	if asked == 0 {
		c.avoid(i, feeder)
		return
	}
	n.reach.search, n.reach.since, n.reach.found = true, c.now, 0
	n.reach.searches++
}

// probe asks node from whether it reaches node to.
func (c *Machine) probe(from, to int) {
	c.search.next++
	c.search.probes = append(c.search.probes, probe{c.search.next, from, to})
	c.do(ActProbe{from, to, c.search.next})
}

// probing counts the probes towards i that are under way.
func (c *Machine) probing(i int) (count int) {
	for _, p := range c.search.probes {
		if p.to == i {
			count++
		}
	}
	return count
}

func (c *Machine) probed(ev EvProbed) {
	k := slices.IndexFunc(c.search.probes, func(p probe) bool { return p.id == ev.Probe && p.from == ev.Node })
	if k < 0 {
		return
	}
	p := c.search.probes[k]
	c.search.probes = slices.Delete(slices.Clone(c.search.probes), k, k+1)
	r := &c.nodes[p.to].reach
	if ev.Code != wire.CodeNone {
		r.note(p.from, ev.Reason)
	} else if r.found == 0 || slices.Index(c.order, p.from) > slices.Index(c.order, r.found) {
		r.found = p.from
	}
	switch {
	case c.cfg.Check && len(c.search.probes) == 0:
		c.endCheck()
	case r.search && c.probing(p.to) == 0:
		c.settle(p.to)
	}
}

// settle ends the search for a feeder of i, with what is known by now. Who has not answered in
// time is not known to be unable.
func (c *Machine) settle(i int) {
	n := &c.nodes[i]
	answered := c.probing(i) == 0
	c.search.probes = slices.DeleteFunc(slices.Clone(c.search.probes), func(p probe) bool { return p.to == i })
	n.reach.search = false
	if n.reach.found == 0 && answered && len(n.reach.cut) > 0 && len(c.above(i)) > 0 && !c.onlyServer(i) {
		return
	}
	if n.reach.waits && n.feed.state == feedAsked {
		c.feedFrom(i)
	}
}

// cutOff says that all who may feed i are known to be unable to reach it; as many as a node is offered in
// vain are enough where nobody can be asked.
func (c *Machine) cutOff(i int) bool {
	n := &c.nodes[i]
	above := c.above(i)
	return len(above) > 0 && len(n.reach.cut) > 0 && (len(n.reach.cut) >= maxAvoid ||
		!slices.ContainsFunc(above, func(j int) bool { return !n.reach.isCut(j) }))
}

// onlyServer notes that no node reaches i. It is false when the server feeds enough such nodes
// already: then i fails, so that the chain does not become a star.
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
		n.reach.left = true
		n.note, n.row.Link = Cause{}, ""
		c.end(i, Failed, fmt.Sprintf("%s, and the server feeds %d such nodes itself already", why, others))
		return false
	}
	if !n.reach.only {
		n.reach.only = true
		c.do(ActLink{Link: "server -> " + n.name, Reason: "stands in: " + why})
	}
	return true
}

// dropProbes is for a node that is gone, with the probes it was asked for.
func (c *Machine) dropProbes(i int) {
	var waited []int
	c.search.probes = slices.DeleteFunc(slices.Clone(c.search.probes), func(p probe) bool {
		if p.from == i {
			waited = append(waited, p.to)
		}
		return p.from == i || p.to == i
	})
	c.nodes[i].reach.search = false
	for j := range c.nodes {
		if !c.nodes[i].reach.left { // that is no reason to forget what it could not reach
			c.nodes[j].reach.forget(i)
		}
	}
	for _, j := range waited {
		if c.nodes[j].reach.search && c.probing(j) == 0 {
			c.settle(j)
		}
	}
}

// lookAround ends searches that have found somebody, or have had their time, and the probes of a check.
func (c *Machine) lookAround() {
	for i := range c.nodes {
		r := &c.nodes[i].reach
		if r.search && (r.found != 0 || c.now-r.since >= timings.probed) {
			c.settle(i)
		}
	}
	if c.cfg.Check && c.now-c.search.since >= timings.probed {
		c.endCheck()
	}
}

// checkWays has all nodes that answered say whether they reach those before and behind them.
func (c *Machine) checkWays() {
	c.search.since = c.now
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

// Unreached lists what is known of who cannot reach whom, of nodes that were there to the end.
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
		asked := slices.ContainsFunc(c.search.probes, func(p probe) bool { return p.from == i })
		if c.cfg.Check && n.holdings.known && (n.contact.version < 2 || asked) {
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
