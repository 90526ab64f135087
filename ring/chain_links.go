package ring

import (
	"github.com/dolly-img/dolly-img/ring/internal/wire"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Who feeds whom: the coordinator's half of links and their generations
// (PROTOCOL.md sections 8 and 9).

// relink gives node i a new generation; its feeder is chosen when it says what it
// needs.
func (c *chain) relink(i int) {
	n := &c.nodes[i]
	if n.feed.state == feedDialled || n.feed.state == feedUp {
		n.feed.replaces = append(n.feed.replaces, ownedLink{n.feed.feeder, n.feed.link})
	}
	c.nextLink++
	n.feed.state, n.feed.link = feedAsked, c.nextLink
	n.feed.gen++
	if n.alive {
		c.do(actFeed{i, n.feed.link, n.feed.gen, c.pickFeeder(i)})
	}
}

// pickFeeder is the nearest node before i that is in the chain and alive, else
// the server. Since it is always a lower number there are no cycles.
func (c *chain) pickFeeder(i int) int {
	if c.nodes[i].feed.direct {
		return 0
	}
	for j := i - 1; j > 0; j-- {
		if n := &c.nodes[j]; n.alive && n.lacks && n.phase >= phServing {
			return j
		}
	}
	return 0
}

func (c *chain) need(ev evNeed) {
	n := &c.nodes[ev.node]
	if n.feed.state != feedAsked || ev.gen != n.feed.gen || ev.link != n.feed.link {
		return
	}
	if len(ev.needs) == 0 {
		n.feed.state = feedDone
		c.undial(n)
		return
	}
	if sum := needSum(c.blobs, ev.needs); sum != n.feed.needSum {
		n.feed.needSum, n.feed.fails = sum, min(n.feed.fails, 1)
	}
	n.feed.feeder, n.feed.state = c.pickFeeder(ev.node), feedDialled
	c.do(actDial{n.feed.feeder, ev.node, n.feed.link, n.feed.gen, ev.needs})
	f := &c.nodes[n.feed.feeder]
	f.ordered = append(f.ordered, n.feed.link)
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

// undial ends the dead links that a new order for n stands in for.
func (c *chain) undial(n *chainNode) {
	for _, l := range n.feed.replaces {
		if l.feeder == 0 || c.nodes[l.feeder].alive {
			c.do(actUndial(l))
		}
	}
	n.feed.replaces = nil
}

func (c *chain) link(ev evLink) {
	for i := 1; i < len(c.nodes); i++ {
		n := &c.nodes[i]
		if n.feed.link != ev.link || n.feed.gen != ev.gen {
			continue
		}
		if n.feed.state != feedDialled && n.feed.state != feedUp && !(n.feed.state == feedDone && ev.node == i && n.phase == phServing) {
			return
		}
		if ev.node != i && ev.node != n.feed.feeder {
			return // nobody reports about others' links
		}
		name := c.linkName(i)
		switch {
		case ev.state == wire.LinkUp && ev.node != i:
			n.feed.state = feedUp
			c.do(actEvent{Event{Kind: EventLink, Link: name, Reason: "up"}})
		case ev.state == wire.LinkDone && ev.node == i:
			n.feed.state = feedDone
		case ev.state == wire.LinkDown && n.phase < phFinal:
			c.do(actEvent{Event{Kind: EventLink, Link: name, Reason: "down: " + ev.reason}})
			c.linkDown(i, name, ev)
		}
		return
	}
}

func (c *chain) linkDown(i int, name string, ev evLink) {
	n := &c.nodes[i]
	if n.feed.feeder != n.feed.culprit {
		n.feed.culprit, n.feed.fails = n.feed.feeder, 0
	}
	n.feed.fails++
	gone := ev.code == CodeGone
	if n.feed.feeder == 0 && (gone || n.feed.fails >= 3) {
		n.row.Link = name
		c.end(i, Failed, "cannot be fed: "+ev.reason)
		return
	}
	if gone || n.feed.fails >= 2 {
		n.feed.direct = true
	}
	c.relink(i)
}

func (c *chain) linkName(i int) string {
	from := "server"
	if f := c.nodes[i].feed.feeder; f > 0 {
		from = c.nodes[f].row.Node
	}
	return from + " -> " + c.nodes[i].row.Node
}

// orphan gives those that the dead node i fed another feeder, and frees the
// feeder of i, whose window is what the first of them goes on from.
func (c *chain) orphan(i int) {
	dead := &c.nodes[i]
	if dead.feed.state == feedDialled || dead.feed.state == feedUp {
		dead.feed.replaces = append(dead.feed.replaces, ownedLink{dead.feed.feeder, dead.feed.link})
	}
	dead.feed.state = feedDone
	for j := range c.nodes {
		if f := &c.nodes[j].feed; f.culprit == i {
			f.direct, f.fails = false, 0 // it was not the link
		}
	}
	heir := 0
	for j := i + 1; j < len(c.nodes); j++ {
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
		c.undial(dead)
		return
	}
	h := &c.nodes[heir]
	h.feed.replaces = append(h.feed.replaces, dead.feed.replaces...)
	dead.feed.replaces = nil
}
