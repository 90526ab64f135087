package coordinator

import "github.com/dolly-img/dolly-img/ring/internal/wire"

// taken is how many bytes a node took of the links into it, as their feeders say: what its kernel acknowledged
// (PROTOCOL.md section 9). A node cannot have received more, whatever it says.
type taken struct {
	// links are the newest links into the node, the newest last. older is what it took of all links before them.
	links [4]takenLink
	older int64
	// believes says that the feeder of the newest link does not tell. once says that nobody told what was taken of an
	// ended link in the end. In both cases the next report of the node is believed.
	believes, once bool
	// guessed says that the node was believed about some of older.
	guessed bool
}

// takenLink is one link into the node, and how many bytes were acknowledged on it.
type takenLink struct {
	link   uint32
	feeder int
	acked  int64
}

// begin notes a new link into the node, and whether its feeder tells what is acknowledged.
func (t *taken) begin(link uint32, feeder int, tells bool) {
	t.older += t.links[0].acked
	copy(t.links[:], t.links[1:])
	t.links[len(t.links)-1] = takenLink{link: link, feeder: feeder}
	t.once = t.once || t.believes
	t.believes = !tells
}

// unknown notes that nobody can tell what the node took of an ended link in the end.
func (t *taken) unknown() { t.once = true }

// tell notes what a feeder says of a link, and returns whether that is one into this node.
func (t *taken) tell(feeder int, l wire.Sending) bool {
	for k := range t.links {
		if of := &t.links[k]; of.link == l.Link && of.feeder == feeder {
			of.acked = max(of.acked, l.Acked)
			return true
		}
	}
	return false
}

// most is how many bytes the node can have received.
func (t *taken) most() (sum int64) {
	sum = t.older
	for _, l := range t.links {
		sum += l.acked
	}
	return sum
}

// report takes what the node says to have received, where it has to be believed. asked says that the node was ordered a
// new link and did not say yet what it needs, so that its report may be older than the end of the link before.
func (t *taken) report(received int64, asked bool) {
	if t.believes || t.once && !asked {
		more := max(0, received-t.most())
		t.older += more
		t.guessed = t.guessed || more > 0
		t.once = false
	}
}

// tells says whether a feeder tells what is acknowledged on the links that it feeds.
func (c *Machine) tells(feeder int) bool { return c.nodes[feeder].contact.version >= wire.AckedSince }

// learn keeps what a feeder says of the links that it feeds, or has fed: their receivers may have got on.
func (c *Machine) learn(feeder int, links []wire.Sending) {
	for _, i := range c.order {
		n := &c.nodes[i]
		for _, l := range links {
			if l.Acked > 0 && n.phase == phServing && n.taken.tell(feeder, l) {
				n.progress.confirm(c.now, c.confirmed(i, n.progress.report))
			}
		}
	}
}

// received is how many bytes node i is believed to have received. One that has everything, and was fed by another node
// last, is believed: the two may not agree, and nobody else can be asked.
func (c *Machine) received(i int, says int64) int64 {
	n := &c.nodes[i]
	if n.feed.state == feedDone && n.feed.feeder != 0 {
		return says
	}
	return min(says, n.taken.most())
}

// dispute is called when i says that it gets on, and the node that feeds it says that i takes nothing. One of the two
// lies: the link is lost, and held against both.
func (c *Machine) dispute(i int) {
	n := &c.nodes[i]
	f, name := n.feed.feeder, c.linkName(i)
	n.tries.shun(f)
	n.taken.unknown()
	n.progress.rest(c.now)
	c.giveUp(i, "its two ends do not agree on what it carries")
	n.blame.hold(f)
	c.nodes[f].blame.hold(i)
	for _, k := range []int{f, i} {
		if o := &c.nodes[k]; o.blame.often() && o.phase < phCommitting {
			o.note, o.row.Link = Cause{}, name
			c.end(k, Failed, because(KindStuck, "does not agree with a second node on what the link between them carries"))
		}
	}
}
