package coordinator

import (
	"fmt"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Machine decides for one transfer who is in the chain, who feeds whom, who
// may commit and what each row says. It does no I/O and knows the time only from
// EvTick: Step takes one event and returns what is to be done. All its state is
// owned by the one goroutine that calls Step.
//
// Nodes are numbered from 1 in the order asked for; 0 is the server. The phases of a node are those of the
// diagrams of PROTOCOL.md section 8.
type Machine struct {
	cfg   Config
	blobs []v1.Descriptor
	nodes []node
	// sizes are those of the blobs, size is that of all together. A stream counts as sizeOf says until it was read, of
	// which unread is what the server has not read.
	sizes        []int64
	size, unread int64
	// order has the nodes that are served and lack something. A feeder stands before those that it feeds.
	order    []int
	nextLink uint32
	// now is the time of the last EvTick.
	now       time.Duration
	speeds    speeds
	comparing comparing
	search    search

	// due says that the time to start has come, and started that the chain was made.
	due, started bool
	// planned says that the plan was closed, and agreed that somebody has confirmed it.
	planned, agreed bool
	// reading says that ActSource was given, sourceDone that EvSourceDone came. finals are the digests of it.
	reading, sourceDone bool
	// marked says that EvMarked came.
	marked bool
	finals []digest.Digest
	// committing says that some node was told to commit: there is no way back.
	committing  bool
	interrupted bool
	finished    bool

	out []Action
}

// New makes the coordinator of a transfer of blobs.
func New(cfg Config, blobs []v1.Descriptor) *Machine {
	c := &Machine{cfg: cfg, blobs: blobs, nodes: make([]node, len(cfg.Nodes)+1)}
	for _, d := range blobs {
		c.sizes = append(c.sizes, sizeOf(d))
		c.size += sizeOf(d)
		if d.Size < 0 {
			c.unread = sizeOf(d)
		}
	}
	for i, p := range cfg.Nodes {
		n := &c.nodes[i+1]
		n.name, n.dials, n.port, n.row.State = p.Name, p.Dials, p.Port, Pending
	}
	c.nodes[0].row.NoSHA = cfg.NoSHA
	c.nodes[0].contact.greeted("", wire.Version)
	return c
}

// Step applies one event and returns the actions it causes, in order.
func (c *Machine) Step(ev Event) []Action {
	c.out = nil
	if c.lastWord(ev) || c.finished {
		return c.out
	}
	switch ev := ev.(type) {
	case EvWelcome:
		c.welcome(ev)
	case EvNoContact:
		c.noContact(ev)
	case EvAway:
		c.event(ev.Node, Pending, ev.Cause)
	case EvAnswer:
		c.answer(ev)
	case EvConfirmed:
		c.confirm(ev)
	case EvDeadline:
		c.maybeStart(true)
	case EvTick:
		passed := ev.Now - c.now
		c.now = ev.Now
		c.tick(passed)
	case EvNeed:
		c.need(ev)
	case EvLink:
		c.link(ev)
	case EvReport:
		c.reported(ev)
	case EvUndialled:
		c.nodes[ev.Node].feed.undialled(ev.Link)
	case EvProbed:
		c.probed(ev)
	case EvFallback:
		c.fallback(ev)
	case EvVerified:
		c.nodeVerified(ev)
	case EvCommitted:
		c.nodeCommitted(ev)
	case EvFail:
		c.fail(ev)
	case EvControlLost:
		c.controlLost(ev)
	case EvResumed:
		c.resumed(ev)
	case EvRate:
		c.cfg.Rate = ev.Rate
		return nil
	case EvMarked:
		c.marked = true
		return nil
	case EvSourceDone:
		c.sourceIsRead(ev)
	case EvSourceFailed:
		c.abortAll(because(KindSource, "%v", ev.Err), wire.CodeSource, ev.Err, ev.Kept)
	case EvCompared:
		c.nodeCompared(ev)
	case EvCompareRead:
		c.comparing.read = true
	case EvInterrupt:
		c.interrupt()
	default:
		panic(fmt.Sprintf("coordinator: unknown event %T", ev))
	}
	c.maybeStart(false)
	c.maybeRead()
	c.maybeFinish()
	return c.out
}

func (c *Machine) do(a Action) { c.out = append(c.out, a) }

func (c *Machine) tell(i int, m wire.Message) {
	if c.nodes[i].contact.alive {
		c.do(ActSend{i, m})
	}
}

func (c *Machine) event(i int, s State, why Cause) {
	c.do(ActNode{i, s, why})
}

// sourceIsRead takes the digests of the blobs, and the sizes of those that had none.
func (c *Machine) sourceIsRead(ev EvSourceDone) {
	c.sourceDone, c.finals, c.unread = true, ev.Finals, 0
	for b, size := range ev.Sizes {
		less := c.sizes[b] - size
		c.sizes[b] -= less
		c.size -= less
		for i := range c.nodes {
			c.nodes[i].holdings.shrink(b, less)
		}
	}
	for i := range c.nodes {
		c.maybeCommit(i)
	}
}

// reported keeps a report, and when it last told of progress.
func (c *Machine) reported(ev EvReport) {
	n := &c.nodes[ev.Node]
	if c.BeforeStart(ev.Node) {
		return
	}
	if ev.Node != 0 && n.phase < phServing {
		if n.phase == phReady {
			n.compared.tell(ev.Report.Good, c.size, comparedStep*c.cfg.MarkEvery, c.now)
		}
		if n.phase == phAsked && ev.Report.Wait == wire.WaitBusy && n.contact.waits() {
			c.event(ev.Node, Pending, because(KindBusy, "waits for another transfer on it to end"))
		}
		return
	}
	n.overwriting.report(ev.Report)
	if ev.Node != 0 && n.phase > phServing {
		n.progress.ended(c.now, ev.Report)
	} else {
		r := ev.Report
		r.Received = min(max(r.Received, 0), c.mostReceived(ev.Node))
		n.taken.report(r.Received, n.feed.state == feedAsked)
		n.progress.stored(min(r.Durable, c.has(ev.Node, r.Received)), len(c.blobs))
		n.progress.take(c.now, r, c.confirmed(ev.Node, r), c.claimed(ev.Node, r))
	}
	if last := len(c.blobs) - 1; ev.Node == 0 && !c.sourceDone && c.blobs[last].Size < 0 {
		c.unread = max(0, c.sizes[last]-ev.Report.Received)
	}
	c.learn(ev.Node, ev.Report.Links)
	c.judgeSuspects()
}
