package coordinator

import (
	"cmp"
	"slices"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// Who feeds whom: the coordinator's half of links and their generations
// (PROTOCOL.md sections 8 and 9).

// maxFails is how many links in a row from the server may be lost before the node fails. Whether anything came
// over the last of them is known when the node says what it needs.
const maxFails = 3

// maxFed is how many slow nodes one node is asked to feed at most: fewer than it may feed in all.
const maxFed = 48

// relink gives node i a new generation; its feeder is chosen when it says what it
// needs.
func (c *Machine) relink(i int) {
	n := &c.nodes[i]
	n.pace.anew()
	n.reach.anew()
	if n.feed.linked() && n.feed.feeder != 0 && !c.nodes[n.feed.feeder].contact.alive {
		n.taken.unknown()
	}
	c.nextLink++
	n.feed.ask(c.nextLink, c.now)
	if n.contact.alive {
		c.do(ActFeed{i, n.feed.link, n.feed.gen, c.pickFeeder(i)})
	}
}

// pickFeeder is the nearest node before i in the order that may feed it. If there is none, it is the
// server. A feeder stands before its receiver, so there are no cycles. A slow node gets the feeder that
// feeds the fewest slow nodes.
func (c *Machine) pickFeeder(i int) int {
	n := &c.nodes[i]
	at := slices.Index(c.order, i)
	if n.tries.direct || n.reach.only || at < 0 {
		return 0
	}
	best, load := 0, 0
	above := c.above(i)
	if len(n.feed.leaves) > 0 { // an older feeder would send also the leaves that the node holds
		above = slices.DeleteFunc(slices.Clone(above), func(j int) bool { return c.nodes[j].contact.version < wire.SetsSince })
	}
	if f := n.reach.found; slices.Contains(above, f) && !n.pace.slow && !slices.Contains(n.tries.avoid, f) {
		return f
	}
	for _, j := range above {
		if slices.Contains(n.tries.avoid, j) || n.reach.isCut(j) {
			continue
		}
		if !n.pace.slow {
			return j
		}
		if l := c.slowFedBy(j); l < maxFed && (best == 0 || l < load) {
			best, load = j, l
		}
	}
	return best
}

// slowFedBy counts the slow nodes that j feeds.
func (c *Machine) slowFedBy(j int) (count int) {
	for i := range c.nodes {
		if n := &c.nodes[i]; n.pace.slow && n.phase == phServing && n.feed.feeder == j {
			count++
		}
	}
	return count
}

func (c *Machine) need(ev EvNeed) {
	n := &c.nodes[ev.Node]
	if !n.feed.answers(ev) {
		return
	}
	n.compared.say() // it has read START, and COMPARED would have come before if COMPARE had
	if _, right := c.setsOf(ev.Leaves); !right || !c.offered(ev.Needs) || !among(ev.Leaves, ev.Needs) {
		c.end(ev.Node, Failed, because(KindProtocol, "needs what was not offered"))
		return
	}
	further := n.feed.take(c.blobs, ev.Needs, ev.Leaves)
	if len(ev.Needs) == 0 {
		n.feed.finish()
		c.undial(n)
		return
	}
	if further {
		n.tries.further()
		n.blame.saw("")
	} else if n.tries.culprit == 0 && n.tries.fails >= maxFails {
		c.unfed(ev.Node, n.tries.why)
		return
	}
	if n.feed.wasEarly() && n.feed.feeder != 0 {
		n.tries.shun(n.feed.feeder) // it said that it had sent everything
	}
	if n.reach.holds() {
		n.reach.wait()
		return
	}
	c.feedFrom(ev.Node)
}

// offered says whether needs are of blobs that there are, in travelling order, each once. They go on to the feeder.
func (c *Machine) offered(needs [][2]int64) bool {
	last := int64(-1)
	for _, n := range needs {
		if n[0] <= last || n[0] >= int64(len(c.blobs)) || n[1] < 0 || c.blobs[n[0]].Size >= 0 && n[1] > c.blobs[n[0]].Size {
			return false
		}
		last = n[0]
	}
	return true
}

// among says whether sets of leaves, which are in the order of their blobs, are of blobs that are needed. A feeder refuses others.
func among(leaves []wire.Leaves, needs [][2]int64) bool {
	for _, n := range needs {
		if len(leaves) > 0 && int64(leaves[0].Blob) == n[0] {
			leaves = leaves[1:]
		}
	}
	return len(leaves) == 0
}

// feedFrom orders the link into i, which has said what it needs.
func (c *Machine) feedFrom(i int) {
	n := &c.nodes[i]
	feeder := c.pickFeeder(i)
	if feeder == 0 && !n.reach.only && c.cutOff(i) && !c.onlyServer(i) {
		return
	}
	n.feed.dial(feeder, c.now)
	n.taken.begin(n.feed.link, feeder, c.tells(feeder))
	c.do(ActDial{feeder, i, n.feed.link, n.feed.gen, n.feed.needs, n.feed.leaves, n.pace.slow})
	if feeder != 0 {
		c.nodes[feeder].feed.feeds(n.feed.link)
	}
	c.undial(n)
}

// release ends the link into n, which takes no more of it.
func (c *Machine) release(n *node) {
	c.endLink(ownedLink{n.feed.feeder, n.feed.link})
}

// endLink tells the feeder of a link to end it.
func (c *Machine) endLink(l ownedLink) {
	if l.feeder == 0 || c.nodes[l.feeder].contact.alive {
		c.do(ActUndial{l.feeder, l.link})
	}
}

// undial ends the dead links that a new order for n stands in for.
func (c *Machine) undial(n *node) {
	for _, l := range n.feed.release() {
		c.endLink(l)
	}
}

func (c *Machine) link(ev EvLink) {
	if ev.Node > 0 && ev.Code == wire.CodeCRC {
		c.damaged(ev)
	}
	for i := 1; i < len(c.nodes); i++ {
		n := &c.nodes[i]
		if n.feed.link != ev.Link || n.feed.gen != ev.Generation {
			continue
		}
		if !n.feed.linked() && !(n.feed.state == feedDone && ev.Node == i && n.phase == phServing) {
			return
		}
		if ev.Node != i && ev.Node != n.feed.feeder {
			return // nobody reports about others' links
		}
		name := c.linkName(i)
		switch {
		case ev.State == wire.LinkUp && ev.Node != i:
			if n.feed.state != feedDialled {
				return // said again, as if it was opened only now
			}
			n.feed.raise(c.now)
			c.do(ActLink{Link: name, Up: true, Again: n.feed.gen > 1, Reason: "up"})
		case ev.State == wire.LinkDone && ev.Node == i:
			// The receiver decides, not the feeder, which must not wait for a receiver that
			// has stopped reading.
			n.feed.finish()
			c.release(n)
		case ev.State == wire.LinkDown && n.phase < phFinal:
			n.tries.breaks(0)
			if ev.Node == n.feed.feeder && ev.Code == wire.CodeNetwork {
				n.tries.breaks(ev.Link)
			}
			c.linkDown(i, name, ev)
		}
		return
	}
}

// damaged keeps what a receiver says of a damaged frame. Its feeder may be heard first, but the feeder has seen
// only that the receiver hung up.
func (c *Machine) damaged(ev EvLink) {
	n := &c.nodes[ev.Node]
	late := ev.Generation+1 == n.feed.gen && n.feed.state == feedAsked
	if ev.Generation != n.feed.gen && !late {
		return
	}
	n.blame.saw(ev.Reason)
	if late && n.phase < phFinal && n.row.Link != "" {
		n.note = linkLost(n.row.Link, ev.Reason)
		c.do(ActLink{Link: n.row.Link, Reason: "down: " + ev.Reason})
	}
}

func (c *Machine) linkDown(i int, name string, ev EvLink) {
	n := &c.nodes[i]
	c.do(ActLink{Link: name, Reason: "down: " + ev.Reason})
	feeder := n.feed.feeder
	if c.fellBack(i, ev) && n.tries.excuse(feeder, c.nodes[feeder].blame.falls) {
		c.relink(i) // the feeder feeds again from where it is
		return
	}
	if n.tries.lose() > maxLost {
		n.row.Link = name
		c.end(i, Failed, because(KindUnfed, "%d links into it were lost: %s", maxLost, ev.Reason))
		return
	}
	if n.tries.fail(feeder, ev.Reason) {
		n.reach.otherFeeder()
	}
	// The first time, a switch may be waking up, or a node may have no time to run. A link that was up before
	// and cannot be opened again was cut; the rules below handle that.
	if ev.Node == feeder && feeder > 0 && ev.Code == wire.CodeNetwork && n.feed.state == feedDialled {
		if n.reach.notDialled() == n.tries.fails && n.tries.fails == 2 {
			c.notDialled(i, feeder, ev.Reason)
		}
	}
	gone := ev.Code == wire.CodeGone || ev.Code == wire.CodeBusy // it cannot feed, whatever the link is like
	if feeder == 0 && gone {
		c.unfed(i, ev.Reason)
		return
	}
	if !gone && len(n.blame.ends) == 0 { // else the note says that bytes were changed, which is the cause of this
		n.note, n.row.Link = linkLost(name, cmp.Or(n.blame.damage, ev.Reason)), name
	}
	if feeder != 0 && (gone || (n.tries.fails >= 2 || n.tries.vain > maxVain) && !n.reach.search) { // else the search finds out whether it can
		n.tries.shun(feeder)
	}
	c.relink(i)
}

// unfed fails a node that even the server could not feed.
func (c *Machine) unfed(i int, why string) {
	n := &c.nodes[i]
	n.row.Link = c.linkName(i)
	c.end(i, Failed, because(KindUnfed, "cannot be fed: %s", cmp.Or(n.blame.damage, why)))
}

// fellBack says whether the link into i ended because its feeder fell back. Either the feeder says so now, or it
// has said so before and i now says that the link ended.
func (c *Machine) fellBack(i int, ev EvLink) bool {
	feeder := c.nodes[i].feed.feeder
	if ev.Node == feeder {
		return ev.Code == wire.CodeMismatch
	}
	return feeder > 0 && ev.Code == wire.CodeNetwork && ev.Link != 0 && ev.Link <= c.nodes[feeder].blame.fell.link
}

// excuse takes back the failures that are counted against a feeder that fell back. The nodes that it fed were heard
// first, and said only that their links broke.
func (c *Machine) excuse(feeder int) {
	for i := range c.nodes {
		n := &c.nodes[i]
		if n.tries.culprit == feeder && n.tries.fails > 0 && n.feed.state != feedUp && n.feed.state != feedDone && len(n.blame.ends) == 0 &&
			n.note.Kind == KindLink && n.note.Link == n.row.Link {
			n.tries.takeBack()
			n.note, n.row.Link = Cause{}, ""
		}
	}
}

func (c *Machine) linkName(i int) string {
	from := "server"
	if f := c.nodes[i].feed.feeder; f > 0 {
		from = c.nodes[f].name
	}
	return from + " -> " + c.nodes[i].name
}

// orphan gives another feeder to the nodes that i fed, because i is dead or about to move. The feeder of i still
// holds its window for i. The first of those nodes goes on from that window, so the feeder is told UNDIAL only after
// the new link into that node was ordered.
func (c *Machine) orphan(i int) {
	c.nodes[i].feed.retire()
	c.nodes[i].feed.finish()
	c.handOver(i)
}

// handOver is orphan for a node whose own feed stays as it is.
func (c *Machine) handOver(i int) {
	from := &c.nodes[i]
	heir := 0
	for _, j := range c.order[slices.Index(c.order, i)+1:] {
		n := &c.nodes[j]
		fed := n.feed.feeder == i && n.feed.linked()
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
		c.undial(from)
		return
	}
	c.nodes[heir].feed.inherit(from.feed.release())
}

// toTail moves i to the end of the order. The nodes that it fed go on behind its feeder.
func (c *Machine) toTail(i int) {
	n := &c.nodes[i]
	was := n.feed.state
	c.orphan(i)
	at := slices.Index(c.order, i)
	c.order = append(slices.Delete(c.order, at, at+1), i)
	if n.phase == phServing && was != feedDone {
		c.relink(i)
	}
}
