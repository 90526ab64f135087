package coordinator

import (
	"fmt"
	"slices"
	"strings"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Who feeds whom: the coordinator's half of links and their generations
// (PROTOCOL.md sections 8 and 9).

// maxAvoid is how many feeders a node is offered in vain before the server feeds
// it: the fault is then most likely its own.
const maxAvoid = 2

// maxFails is how often in a row the server may feed a node in vain. That nothing has come in
// between is known when the node says what it needs.
const maxFails = 3

// relink gives node i a new generation; its feeder is chosen when it says what it
// needs.
func (c *Machine) relink(i int) {
	n := &c.nodes[i]
	if n.feed.state == feedDialled || n.feed.state == feedUp {
		n.feed.replaces = append(n.feed.replaces, ownedLink{n.feed.feeder, n.feed.link})
	}
	n.pace.carried, n.pace.burst, n.reach.waits = 0, 0, false
	c.nextLink++
	n.feed.state, n.feed.link, n.feed.asked = feedAsked, c.nextLink, c.now
	n.feed.gen++
	if n.contact.alive {
		c.do(ActFeed{i, n.feed.link, n.feed.gen, c.pickFeeder(i)})
	}
}

// pickFeeder is the nearest node before i in the order that may feed it, else the
// server. Since it stands before i there are no cycles. Slow nodes share out the
// feeders among them.
func (c *Machine) pickFeeder(i int) int {
	n := &c.nodes[i]
	at := slices.Index(c.order, i)
	if n.tries.direct || n.reach.only || at < 0 {
		return 0
	}
	best, load := 0, 0
	above := c.above(i)
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
		if l := c.slowFedBy(j); best == 0 || l < load {
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
	if n.feed.state != feedAsked || ev.Generation != n.feed.gen || ev.Link != n.feed.link {
		return
	}
	n.feed.needs = ev.Needs
	if len(ev.Needs) == 0 {
		n.feed.state = feedDone
		c.undial(n)
		return
	}
	if sum := needSum(c.blobs, ev.Needs); sum != n.feed.sum {
		n.feed.sum, n.tries.fails, n.blame.damage = sum, min(n.tries.fails, 1), ""
	} else if n.tries.culprit == 0 && n.tries.fails >= maxFails {
		c.unfed(ev.Node, n.tries.why)
		return
	}
	if n.feed.early && n.feed.feeder != 0 {
		c.avoid(ev.Node, n.feed.feeder) // it said that it had sent everything
	}
	n.feed.early = false
	if n.reach.search {
		n.reach.waits = true
		return
	}
	c.feedFrom(ev.Node)
}

// feedFrom orders the link into i, which has said what it needs.
func (c *Machine) feedFrom(i int) {
	n := &c.nodes[i]
	feeder := c.pickFeeder(i)
	if feeder == 0 && !n.reach.only && c.cutOff(i) && !c.onlyServer(i) {
		return
	}
	n.feed.feeder, n.feed.state, n.feed.asked = feeder, feedDialled, c.now
	c.do(ActDial{feeder, i, n.feed.link, n.feed.gen, n.feed.needs, n.pace.slow})
	f := &c.nodes[n.feed.feeder]
	f.feed.ordered = append(f.feed.ordered, n.feed.link)
	c.undial(n)
}

// needSum folds a NEED into one number that changes when anything was received.
func needSum(blobs []v1.Descriptor, needs [][2]int64) (s int64) {
	for _, nd := range needs {
		s += nd[1] + 1 // a stream has no size to subtract from
		if b := nd[0]; b >= 0 && b < int64(len(blobs)) {
			s -= max(blobs[b].Size, 0) + 1
		}
	}
	return s
}

// release ends the link into n, which takes no more of it.
func (c *Machine) release(n *node) {
	if l := (ownedLink{n.feed.feeder, n.feed.link}); l.feeder == 0 || c.nodes[l.feeder].contact.alive {
		c.do(ActUndial{l.feeder, l.link})
	}
}

// undial ends the dead links that a new order for n stands in for.
func (c *Machine) undial(n *node) {
	for _, l := range n.feed.replaces {
		if l.feeder == 0 || c.nodes[l.feeder].contact.alive {
			c.do(ActUndial{l.feeder, l.link})
		}
	}
	n.feed.replaces = nil
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
		if n.feed.state != feedDialled && n.feed.state != feedUp && !(n.feed.state == feedDone && ev.Node == i && n.phase == phServing) {
			return
		}
		if ev.Node != i && ev.Node != n.feed.feeder {
			return // nobody reports about others' links
		}
		name := c.linkName(i)
		switch {
		case ev.State == wire.LinkUp && ev.Node != i:
			n.feed.state, n.feed.up = feedUp, c.now
			c.do(ActLink{Link: name, Up: true, Again: n.feed.gen > 1, Reason: "up"})
		case ev.State == wire.LinkDone && ev.Node == i:
			// Its word for it, not the feeder's: which must not wait for a receiver
			// that does not read on.
			n.feed.state = feedDone
			c.release(n)
		case ev.State == wire.LinkDown && n.phase < phFinal:
			if n.tries.broke = 0; ev.Node == n.feed.feeder && ev.Code == wire.CodeNetwork {
				n.tries.broke = ev.Link
			}
			c.linkDown(i, name, ev)
		}
		return
	}
}

// damaged keeps what a receiver says of a damaged frame: its feeder, which may be heard
// first, has seen no more than that the receiver hung up.
func (c *Machine) damaged(ev EvLink) {
	n := &c.nodes[ev.Node]
	late := ev.Generation+1 == n.feed.gen && n.feed.state == feedAsked
	if ev.Generation != n.feed.gen && !late {
		return
	}
	n.blame.damage = ev.Reason
	if late && n.phase < phFinal && n.row.Link != "" {
		n.note = because("link " + n.row.Link + ": " + ev.Reason)
		c.do(ActLink{Link: n.row.Link, Reason: "down: " + ev.Reason})
	}
}

func (c *Machine) linkDown(i int, name string, ev EvLink) {
	n := &c.nodes[i]
	c.do(ActLink{Link: name, Reason: "down: " + ev.Reason})
	feeder := n.feed.feeder
	if c.fellBack(i, ev) && n.tries.excused < maxFalls*len(c.order) {
		n.tries.excused++ // the feeder feeds again from where it is
		c.relink(i)
		return
	}
	if n.tries.lost++; n.tries.lost > maxLost {
		n.row.Link = name
		c.end(i, Failed, fmt.Sprintf("%d links into it were lost: %s", maxLost, ev.Reason))
		return
	}
	if feeder != n.tries.culprit {
		n.tries.culprit, n.tries.fails, n.reach.undialled = feeder, 0, 0
	}
	n.tries.fails++
	n.tries.why = ev.Reason
	// Once may be a switch that wakes up, or a node without time to run. A link that was up before, and
	// cannot be opened again, was cut: that is for the rules below.
	if ev.Node == feeder && feeder > 0 && ev.Code == wire.CodeNetwork && n.feed.state == feedDialled {
		if n.reach.undialled++; n.reach.undialled == n.tries.fails && n.tries.fails == 2 {
			c.notDialled(i, feeder, ev.Reason)
		}
	}
	gone := ev.Code == wire.CodeGone
	if feeder == 0 && gone {
		c.unfed(i, ev.Reason)
		return
	}
	if !gone && n.blame.links == 0 { // changed bytes are worth more to know than what came of them
		n.note, n.row.Link = because("link "+name+": "+orElse(n.blame.damage, ev.Reason)), name
	}
	if feeder != 0 && (gone || n.tries.fails >= 2 && !n.reach.search) { // else the search tells whether it can
		c.avoid(i, feeder)
	}
	c.relink(i)
}

// unfed is for who cannot be fed by the server either.
func (c *Machine) unfed(i int, why string) {
	n := &c.nodes[i]
	n.row.Link = c.linkName(i)
	c.end(i, Failed, "cannot be fed: "+orElse(n.blame.damage, why))
}

// fellBack says whether the link into i ended because its feeder fell back: it says so, or it
// has said so before and i is heard now, to whom the link has just ended.
func (c *Machine) fellBack(i int, ev EvLink) bool {
	feeder := c.nodes[i].feed.feeder
	if ev.Node == feeder {
		return ev.Code == wire.CodeMismatch
	}
	return feeder > 0 && ev.Code == wire.CodeNetwork && ev.Link != 0 && ev.Link <= c.nodes[feeder].blame.fell.link
}

// excuse is for those whom a feeder fed that has fallen back, and who were heard first.
func (c *Machine) excuse(feeder int) {
	for i := range c.nodes {
		n := &c.nodes[i]
		if n.tries.culprit == feeder && n.tries.fails > 0 && n.feed.state != feedUp && n.feed.state != feedDone && n.blame.links == 0 &&
			strings.HasPrefix(n.note.Text, "link "+n.row.Link+": ") {
			n.tries.fails--
			n.note, n.row.Link = Cause{}, ""
		}
	}
}

// avoid has i fed by another than feeder from now on.
func (c *Machine) avoid(i, feeder int) {
	f := &c.nodes[i].tries
	if !slices.Contains(f.avoid, feeder) {
		f.avoid = append(f.avoid, feeder)
	}
	f.direct = len(f.avoid) >= maxAvoid
}

func (c *Machine) linkName(i int) string {
	from := "server"
	if f := c.nodes[i].feed.feeder; f > 0 {
		from = c.nodes[f].name
	}
	return from + " -> " + c.nodes[i].name
}

// orphan gives those that i fed another feeder, and frees the feeder of i, whose
// window is what the first of them goes on from. i is dead, or about to move.
func (c *Machine) orphan(i int) {
	from := &c.nodes[i]
	if from.feed.state == feedDialled || from.feed.state == feedUp {
		from.feed.replaces = append(from.feed.replaces, ownedLink{from.feed.feeder, from.feed.link})
	}
	from.feed.state = feedDone
	heir := 0
	for _, j := range c.order[slices.Index(c.order, i)+1:] {
		n := &c.nodes[j]
		fed := n.feed.feeder == i && (n.feed.state == feedDialled || n.feed.state == feedUp)
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
	h := &c.nodes[heir]
	h.feed.replaces = append(h.feed.replaces, from.feed.replaces...)
	from.feed.replaces = nil
}

// toTail moves i to the end of the order. Whom it fed goes on behind its feeder.
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
