package coordinator

import (
	"time"

	"github.com/dolly-img/dolly-img/ring/bytesize"
	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/dolly-img/dolly-img/ring/leaf"
)

// Before the start of an update the nodes compare what they have with the marks of what will be sent (PROTOCOL.md section 7,
// "Comparing").

// comparing is how far that is, of all nodes.
type comparing struct {
	// begun says that the nodes were asked, read that the source was read, and over that nobody is waited for any more.
	begun, read, over bool
	// since is when they were asked.
	since time.Duration
	// rate is how many bytes per second the quickest of those compared that have ended and had something to compare. 0: nobody yet.
	rate float64
}

// compared is how far comparing is on one node.
type compared struct {
	asked, said bool
	good        int64         // bytes that it says to have compared
	moved       time.Duration // when that grew last by a step
	was         int64         // what it was then
}

// ask notes that the node was sent COMPARE.
func (c *compared) ask(now time.Duration) { *c = compared{asked: true, moved: now} }

// tell notes how many bytes of size the node says to have compared. Less than step more are no progress, but at the end.
func (c *compared) tell(good, size, step int64, now time.Duration) {
	c.good = max(c.good, min(good, size))
	if c.good-c.was >= step || c.good > c.was && c.good == size {
		c.was, c.moved = c.good, now
	}
}

// say notes that the node has said COMPARED.
func (c *compared) say() { c.said = true }

// waits reports whether the node was asked and has not answered.
func (c *compared) waits() bool { return c.asked && !c.said }

// BeforeStart reports whether node i, which was sent START, may not have read it yet. It says COMPARED when it reads it, and what it says
// of how far it is before that is how far it compares.
func (c *Machine) BeforeStart(i int) bool {
	n := &c.nodes[i]
	return n.phase >= phServing && n.compared.waits()
}

// comparedStep is how many leaves a node compares in timings.hung at the least: 64 MiB, about what the slowest disk reads in a second.
const comparedStep = 16

// ended notes that a node has compared so many bytes, and nothing more is left of what it has.
func (c *comparing) ended(bytes int64, now time.Duration) {
	c.rate = max(c.rate, float64(bytes)/max(now-c.since, TickEvery).Seconds())
}

// late reports whether also a node that compares half as quickly as the quickest one would have compared size bytes by now.
func (c *comparing) late(size int64, now time.Duration) bool {
	return c.rate > 0 && (now-c.since-timings.compare).Seconds() > 2*float64(size)/c.rate
}

// compare has the nodes compare what they have, and reports whether the start has to wait for that.
func (c *Machine) compare() (wait bool) {
	p := &c.comparing
	if p.over {
		return false
	}
	if !p.begun {
		p.begun, p.since = true, c.now
		c.do(ActCompare{})
	}
	waits, moves := false, false
	for i := 1; i < len(c.nodes); i++ {
		n := &c.nodes[i]
		if n.phase != phReady {
			continue
		}
		if !n.compared.asked && c.compares(i) {
			n.compared.ask(c.now)
			c.tell(i, &wire.Compare{})
		}
		if n.compared.waits() {
			waits = true
			moves = moves || c.now-n.compared.moved < timings.hung
		}
	}
	switch {
	case !p.read:
		return true
	case !waits || !moves || p.late(c.size, c.now):
		p.over = true
	}
	return !p.over
}

// compares reports whether node i, which has answered, is asked to compare what it has.
func (c *Machine) compares(i int) bool {
	n := &c.nodes[i]
	return c.cfg.Compare && !c.comparing.over && n.contact.version >= wire.SetsSince && n.holdings.lacks
}

// nodeCompared takes the leaves that a node has.
func (c *Machine) nodeCompared(ev EvCompared) {
	n := &c.nodes[ev.Node]
	if !n.compared.waits() || n.phase != phReady && n.phase != phServing {
		return
	}
	sets, right := c.setsOf(ev.Leaves)
	if !right {
		c.end(ev.Node, Failed, because(KindProtocol, "has compared leaves that there are not"))
		return
	}
	n.compared.say()
	n.row.Skipped = n.holdings.compare(sets)
	c.comparing.ended(min(ev.Bytes, c.size), c.now)
	c.hasRoom(ev.Node, n.holdings.missing(c.blobs))
}

// hasRoom fails a node that has less room than it needs.
func (c *Machine) hasRoom(i int, missing int64) bool {
	free := c.nodes[i].row.Free
	if free >= 0 && missing > free {
		c.end(i, Failed, because(KindSpace, "no space: needs %s, %s are free", bytesize.Text(missing), bytesize.Text(free)))
		return false
	}
	return true
}

// common returns for each blob the leaves that all nodes have that are served, or nil where there are none.
func (c *Machine) common() []*leaf.Set {
	if !c.comparing.begun || len(c.order) == 0 {
		return nil
	}
	all := make([]*leaf.Set, len(c.blobs))
	for k, i := range c.order {
		sets := c.nodes[i].holdings.sets
		if sets == nil {
			return nil
		}
		for b, set := range sets {
			switch {
			case k == 0:
				all[b] = set.Clone()
			case all[b] != nil:
				all[b].Keep(set)
			}
		}
	}
	return all
}
