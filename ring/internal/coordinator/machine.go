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
// Nodes are numbered from 1 in the order asked for; 0 is the server. The diagrams
// of PROTOCOL.md section 8 are this file's phases.
type Machine struct {
	straggler Straggler
	retries   int // how often a lost node is taken back
	check     bool
	markEvery int64 // the distance of marks, in bytes
	maxDirect int   // nodes that the server feeds because no node reaches them, at most; 0: no limit, -1: none

	blobs      []v1.Descriptor
	nodes      []chainNode // [0] is the server: of it only report and links are used
	order      []int       // of those that lack something: a feeder stands before its receiver
	nextLink   uint32
	now        time.Duration // of the last EvTick
	judged     time.Duration // when slow nodes were last looked for
	limit      int64         // bytes per second the server sends at most; 0: none
	stoodOut   int           // who was slower than the others when the bottleneck was last asked for; 0: nobody
	serverSlow bool          // its links are, to whomever
	probes     []probe       // under way
	nextProbe  uint32
	checkedAt  time.Duration // of a check: when the nodes were asked whom they reach
	most       int64         // bytes per second that several feeders send at most; 0 is unknown

	due         bool // the time to start has come
	started     bool
	reading     bool // ActSource was given
	sourceDone  bool
	finals      []digest.Digest // per blob, once sourceDone
	committing  bool            // some node was told to commit: no way back
	interrupted bool
	finished    bool

	out []Action
}

type phase int

const (
	phAway phase = iota - 1 // lost, or did not answer: dialled again while others are served
	phDialing
	phAsked      // OFFER sent
	phReady      // ANSWER came, waits for the start
	phServing    // START sent
	phVerified   // everything durable, waits for COMMIT
	phCommitting // COMMIT sent
	phFinal      // its row is final; it may still forward while alive
)

type feedState int

const (
	feedNone    feedState = iota // also: fell back, and the link to blame is not yet known
	feedAsked                    // FEED sent, NEED awaited
	feedDialled                  // DIAL sent
	feedUp
	feedDone // FIN came, or nothing is needed any more
)

// chainNode is what the coordinator knows of one node.
type chainNode struct {
	name       string
	phase      phase
	alive      bool // its control connection is open
	resuming   bool // its control connection broke and is being dialled again
	contacted  bool // it has answered once
	busy       bool // it was asked, and waits for another transfer to end
	instance   wire.ID
	addr       string // that it answered at last
	dials      string // where it is dialled, for rows
	port       string // of its first address
	version    int    // of the protocol that it speaks with the server
	reach      reach
	held       []int64 // per blob its size if it vouches for it, else -1
	claims     []int64 // per blob the leading bytes it claims, in whole marks
	lacks      bool    // some blob: it takes part in the chain
	replays    bool    // it can read back what it stored
	change     bool    // it holds everything, and has something to switch
	report     wire.Report
	links      []wire.Sending // of the report before
	verified   *wire.Verified
	row        Row
	ordered    []uint32      // all links it was told to feed
	before     int64         // received before it was lost
	offered    bool          // it has answered an offer
	held0      int64         // bytes it said to hold when it first did
	returns    int           // times it came back
	committed  time.Duration // when COMMIT was sent
	asked      time.Duration
	moved      time.Duration // when its report last told of progress
	told       time.Duration // when its last report came
	rate       int64         // bytes per second it received between the last two; 0 is unknown
	rateBefore int64         // rate of the report before
	best       int64         // bytes per second it got in two reports in a row, since somebody was called slow last
	could      int64         // bytes per second it could carry when it was last known
	carried    int64         // of it the link into it, at its best while it was busy; a little less with each second
	burst      int64         // what passed over that link in moments, when it was mostly idle
	note       Cause         // what happened to it, for a row that ends well

	slow     bool   // it is served at the end of the order, and feeds nobody
	slowSeen int    // reports in a row that say so
	slowHeld bool   // the last of them says so of whom it feeds
	slowRate int64  // bytes per second because of which it was called slow
	slowWhy  string // why it was called slow, and the row's link then
	slowLink string
	cleared  int    // times it was called slow and turned out not to be
	sends    int64  // bytes per second, where it was called slow because of what it sends
	slowed   int    // whom it feeds was called slow, because of the link from it; 0: nobody
	banned   bool   // bytes were changed on a link it fed: it feeds nobody
	blames   int    // blamed links it was an end of
	falls    int    // times it fell back
	damage   string // what it said of the last damaged frame; its feeder sees only a broken pipe
	suspect  *suspicion
	fell     struct { // when it fell back last: what it had sent on older links behind blob, good
		link uint32
		blob int
		good int64
	}

	feed struct {
		state    feedState
		link     uint32
		gen      uint32 // only grows
		feeder   int
		asked    time.Duration // when FEED, or DIAL to its feeder, was sent
		tried    time.Duration // when a link was last given up because nothing happens
		early    bool          // it said done, and waits all the same
		lost     int           // links into it, in all
		excused  int           // of them because the feeder fell back
		up       time.Duration // since when the link is up
		fails    int           // links from one feeder, the culprit, lost in a row
		culprit  int
		why      string     // the last of them was
		broke    uint32     // the link its feeder said had broken
		avoid    []int      // may not feed it: their links were lost twice
		direct   bool       // only the server may feed it
		needs    [][2]int64 // of the last NEED: what the link carries
		needSum  int64      // of it, to see progress
		replaces []ownedLink
	}
}

// ownedLink is a dead link whose feeder still holds its window for it: UNDIAL is
// due once the link that stands in for it was ordered.
type ownedLink struct {
	feeder int
	link   uint32
}

// New makes the coordinator of a transfer of blobs.
func New(cfg Config, blobs []v1.Descriptor) *Machine {
	c := &Machine{
		straggler: cfg.Straggler, retries: cfg.Retries, check: cfg.Check, limit: cfg.Rate, maxDirect: cfg.MaxDirect, markEvery: cfg.MarkEvery,
		blobs: blobs, nodes: make([]chainNode, len(cfg.Nodes)+1),
	}
	for i, p := range cfg.Nodes {
		n := &c.nodes[i+1]
		n.name, n.dials, n.port, n.row.State = p.Name, p.Dials, p.Port, Pending
	}
	return c
}

// Step applies one event and returns the actions it causes, in order.
func (c *Machine) Step(ev Event) []Action {
	c.out = nil
	if c.finished {
		return nil
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
	case EvDeadline:
		c.maybeStart(true)
	case EvTick:
		c.now = ev.Now
		c.tick()
	case EvNeed:
		c.need(ev)
	case EvLink:
		c.link(ev)
	case EvReport:
		c.reported(ev)
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
	case EvSourceDone:
		c.sourceDone, c.finals = true, ev.Finals
		for i := range c.nodes {
			c.maybeCommit(i)
		}
	case EvSourceFailed:
		c.abortAll(wire.CodeSource, ev.Err.Error(), ev.Err, ev.Kept)
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
	if c.nodes[i].alive {
		c.do(ActSend{i, m})
	}
}

func (c *Machine) event(i int, s State, why Cause) {
	c.do(ActNode{i, s, why})
}

// reported keeps a report, and when it last told of progress.
func (c *Machine) reported(ev EvReport) {
	n := &c.nodes[ev.Node]
	if ev.Node != 0 && n.phase < phServing {
		if n.phase == phAsked && ev.Report.Wait == wire.WaitBusy && !n.busy {
			n.busy = true
			c.event(ev.Node, Pending, because("waits for another transfer on it to end"))
		}
		return
	}
	old, now := &n.report, &ev.Report
	if now.Received != old.Received || now.Marked != old.Marked || now.Durable != old.Durable {
		n.moved = c.now
	}
	if ev.Node != 0 {
		n.rateBefore = n.rate
		n.rate, n.told = wire.PerSecond(max(0, now.Received-old.Received), c.now-n.told), c.now
		n.best = max(n.best, n.gets())
	}
	n.links, n.report = old.Links, ev.Report
	c.judgeSuspects()
}
