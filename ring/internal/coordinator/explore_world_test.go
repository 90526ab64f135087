//go:build !race

package coordinator

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/member"
	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// The world of the explorer: the shipped coordinator, the shipped member of each
// node, and between them a network of queues. Everything that drivers and wires do is
// a move, and moves may come in any order. A frame is of xFrame bytes of one blob, with a
// mark behind each, and stands here for one byte: 0 as the source has it, and 1 when it was changed.
//
// No world has questions or wishes: a node answers them before there is a session (node_control.go and node_lobby.go of package ring)
// from its cache, and nothing of them reaches the coordinator or a member. The simulation has them (sim_ask_test.go there).

const (
	xFrames = 2
	xFrame  = 1 << 20 // more than leastStep
)

type world struct {
	blob    v1.Descriptor
	sum     []byte // its SHA-256
	c       *Machine
	nodes   []*xNode // [0] is nil
	links   []*xLink
	read    int // frames of the source
	again   int // frames that were read before, for their marks
	marking bool
	source  bool
	told    bool // EvSourceDone
	asks    []xAsk
	left    budget
	may     budget // left, as it was at first
	patient bool   // ownWork has no precedence
	now     time.Duration
	over    bool
	err     error
	liar    xLiar

	// A world shares with the one it comes from what a move does not change: nodes and the
	// coordinator are changed only through own and ownChain.
	owned []bool   // [0]: the coordinator
	sums  []uint64 // fingerprints, of those that are not owned
}

// own is node i, to be changed.
func (w *world) own(i int) *xNode {
	if !w.owned[i] {
		w.owned[i] = true
		w.nodes[i] = copyOf(w.nodes[i])
	}
	return w.nodes[i]
}

func (w *world) ownChain() *Machine {
	if !w.owned[0] {
		w.owned[0] = true
		w.c = copyOf(w.c)
	}
	return w.c
}

// budget is what may go wrong.
type budget struct {
	crashes, returns, cuts, flips, ticks int
	twins                                int // 1: the last node is another name of the first one
	liar, lies                           int // this node, which may lie so often; see xLiar
	sets                                 int // which of xOlds the nodes have, of a blob in leaves
	late                                 int // 1: the last node is not there before it returns
	stuck                                int // this node compares nothing of what it has
	walls                                int // so many pairs, (1, 2) (1, 3) (2, 3), in which nobody can dial the other
	// delays is how often a move may be made that is not the next one in the order of
	// moves; faults may strike at any moment.
	delays int
}

const anyOrder = 1 << 20 // delays: none is counted

type xNode struct {
	up       bool // the process runs
	instance byte
	newest   uint32      // generation it was told to take
	ctrl     bool        // to the server
	gone     bool        // the server has not yet seen that it ended
	in       []*xMessage // for the node
	out      []*xMessage // for the coordinator

	m       *member.Machine
	data    []byte // as accepted
	hashed  int
	ended   bool // its sum was told
	jobs    []string
	result  string // of a transfer that ended here: the state WELCOME tells
	showing []byte // published, across crashes
	touched bool   // something went wrong with this node itself
	barred  bool   // it may publish nothing: another name of it came before COMMIT

	old       []byte // what it has in advance
	filled    []bool // which bytes of data are of that
	own       int    // bytes of it that were hashed to be compared
	comparing bool
}

type xLink struct {
	feeder, node int
	link, gen    uint32
	pos          int
	lag          bool   // its receiver does not hold the window
	state        string // ordered, up, last (one more frame may arrive), broken, closed
	told, seen   bool   // the end of a broken one, by feeder and receiver
	skips        byte   // a bit for each frame that its receiver holds
	halted       bool   // its feeder falls back: it carries no more than what is on the way
}

type xAsk struct {
	node      int
	redial    bool
	committed bool
}

func xSum(data []byte) []byte { h := sha256.Sum256(data); return h[:] }

func newWorld(nodes int, left budget) *world {
	sum := xSum(make([]byte, xFrames))
	blob := v1.Descriptor{Size: xFrames * xFrame, Digest: digest.NewDigestFromBytes(digest.SHA256, sum)}
	w := &world{blob: blob, sum: sum, left: left, may: left, nodes: make([]*xNode, nodes+1), owned: slices.Repeat([]bool{true}, nodes+1), sums: make([]uint64, nodes+1)}
	cfg := Config{Retries: 2, MarkEvery: xFrame, Compare: w.compares()}
	for i := 1; i <= nodes; i++ {
		cfg.Nodes = append(cfg.Nodes, Peer{Name: fmt.Sprint("n", i)})
		w.nodes[i] = &xNode{up: true, ctrl: true, instance: byte(i)}
		w.holdInAdvance(i)
	}
	w.c = New(cfg, []v1.Descriptor{w.blob})
	if left.lies > 0 {
		w.nodes[left.liar].touched = true
	}
	if left.twins > 0 || left.late > 0 {
		*w.nodes[nodes] = xNode{touched: true, instance: byte(nodes), old: w.nodes[nodes].old}
		w.chain(EvNoContact{nodes, Unreachable, false, Cause{Kind: KindContact, Text: "no answer"}})
		nodes--
	}
	for i := 1; i <= nodes; i++ {
		w.chain(EvWelcome{i, wire.ID{byte(i)}, wire.StateNew, "", "", wire.Version, false})
	}
	return w
}

// walled says that of two nodes neither can dial the other.
func (w *world) walled(a, b int) bool {
	pair := [2]int{min(a, b), max(a, b)}
	return slices.Contains([][2]int{{1, 2}, {1, 3}, {2, 3}}[:w.may.walls], pair)
}

func (w *world) fail(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf(format, args...)
	}
}

// chain steps the coordinator and does what it says.
func (w *world) chain(ev any) {
	acts := w.ownChain().Step(ev)
	for i := range w.c.nodes {
		n := &w.c.nodes[i]
		if f := &w.c.nodes[n.feed.feeder]; n.feed.feeder > 0 && n.phase == phServing && n.feed.linked() && !f.contact.alive && !f.contact.resuming {
			w.fail("n%d is still to be fed by n%d, which is gone", i, n.feed.feeder)
		}
	}
	for _, a := range acts {
		switch a := a.(type) {
		case ActSend:
			w.send(a.Node, a.Msg)
			if _, ok := a.Msg.(*wire.Compare); ok && w.again > 0 {
				w.send(a.Node, w.marks(0))
			}
		case ActCompare:
			w.marking = true
		case ActOffer:
			w.send(a.Node, &wire.Offer{Blobs: []v1.Descriptor{w.blob}})
		case ActFeed:
			w.send(a.Node, &wire.Feed{Link: a.Link, Generation: a.Generation})
		case ActDial:
			d := &wire.Dial{Link: a.Link, Generation: a.Generation, Name: fmt.Sprint(a.Node), Needs: a.Needs, Lag: a.Lag, Leaves: a.Leaves}
			if a.Feeder == 0 {
				w.order(0, d)
			} else {
				w.send(a.Feeder, d)
			}
		case ActUndial:
			if a.Feeder == 0 {
				w.unlink(0, a.Link)
			} else {
				w.send(a.Feeder, &wire.Undial{Link: a.Link})
			}
		case ActMarks:
			w.send(a.Node, w.marks(0))
		case ActSource:
			w.source = true
			w.checkCommon(a)
		case ActResume:
			w.asks = append(w.asks, xAsk{a.Node, false, a.Committed})
		case ActRedial:
			w.asks = append(w.asks, xAsk{a.Node, true, false})
		case ActProbe:
			w.send(a.From, &wire.Probe{Probe: a.Probe, Name: fmt.Sprint(a.To)})
		case ActHangup:
			w.own(a.Node).ctrl = false
		case ActFinal:
			w.final(a.Node)
		case ActFinish:
			w.over = true
		}
	}
}

// final checks a row at the moment it becomes final.
func (w *world) final(i int) {
	row, n := w.c.nodes[i].row, w.nodes[i]
	if row.State.Good() && string(n.showing) != string(make([]byte, xFrames)) {
		w.fail("n%d is %s and shows %v", i, row.State, n.showing)
	}
	if row.State.Good() && row.Digest != w.digest().String() {
		w.fail("n%d is %s with digest %q", i, row.State, row.Digest)
	}
}

func (w *world) send(i int, m wire.Message) {
	if w.nodes[i].ctrl {
		n := w.own(i)
		n.in = append(n.in, onTheWay(m))
	}
}

// marks are those from the one before byte from+1 on.
func (w *world) marks(from int) *wire.Marks {
	m := &wire.Marks{}
	read := max(w.read, w.again)
	for i := from + 1; i <= read; i++ {
		m.Marks = append(m.Marks, wire.Mark{Offset: int64(i) * xFrame, Sum: w.sumOf(make([]byte, i))})
	}
	if read == xFrames {
		m.Marks = append(m.Marks, wire.Mark{Offset: w.blob.Size, Sum: w.sum, Final: true})
	}
	return m
}

func (w *world) order(feeder int, d *wire.Dial) {
	var node int
	fmt.Sscan(d.Name, &node)
	l := &xLink{feeder: feeder, node: node, link: d.Link, gen: d.Generation, pos: int(d.Needs[0][1] / xFrame), lag: d.Lag, state: "ordered"}
	if len(d.Leaves) > 0 {
		l.skips = d.Leaves[0].Set[0]
	}
	w.links = append(w.links, l)
}

// unlink ends a link from its feeder's side, without a report.
func (w *world) unlink(feeder int, link uint32) {
	for _, l := range w.links {
		if l.feeder == feeder && l.link == link && l.state != "closed" {
			l.told = true
			if l.state == "ordered" {
				l.state = "closed"
			} else {
				l.state = "broken"
			}
		}
	}
}

// dials says whether a message orders a link into node i.
func dials(i int) func(*xMessage) bool {
	return func(x *xMessage) bool {
		d, ok := x.m.(*wire.Dial)
		return ok && d.Name == fmt.Sprint(i)
	}
}

// hasRead has a node answer the PING behind an UNDIAL.
func (w *world) hasRead(i int, read EvUndialled) {
	if n := w.own(i); w.may.cuts > 0 {
		n.out = append(slices.Clone(n.out), onTheWay(read))
	} else {
		w.chain(read) // nobody asks for it
	}
}

// node steps a member and does what it says.
func (w *world) node(i int, ev member.Event) []member.Action {
	n := w.own(i)
	out := n.m.Step(ev)
	for _, a := range out {
		switch a := a.(type) {
		case member.ActSay:
			if ev, ok := Heard(i, a.Msg); ok && n.ctrl && !w.keepsToItself(i, a.Msg) {
				n.out = append(n.out, onTheWay(ev))
			}
		case member.ActCloseFeed:
			for _, l := range w.links {
				if l.node == i && l.state == "up" {
					l.state = "last" // a frame may be in the reader's hands
				}
			}
		case member.ActLink:
			w.order(i, a.Dial)
		case member.ActUnlink:
			w.unlink(i, a.Link)
		case member.ActReach:
			var to int
			fmt.Sscan(a.Probe.Name, &to)
			ev := member.EvReached{Probe: a.Probe.Probe}
			if w.walled(i, to) || !w.nodes[to].up {
				ev.Code = wire.CodeNetwork
			}
			w.node(i, ev)
		case member.ActCompare:
			n.comparing = true
		case member.ActCompared:
			n.comparing = false
		case member.ActSettle:
			n.jobs = append(n.jobs, "durable")
		case member.ActPrepare:
			n.jobs = append(n.jobs, "prepared")
		case member.ActPublish:
			if !w.told {
				w.fail("n%d publishes before the source was read to its end", i)
			}
			n.jobs = append(n.jobs, "published")
		case member.ActReset:
			n.jobs = append(n.jobs, "reset")
			for _, l := range w.links {
				l.halted = l.halted || l.feeder == i
			}
		case member.ActRelease:
			w.release(i)
		}
	}
	if _, ok := ev.(member.EvFrame); !ok { // else its bytes come first
		w.fill(i)
	}
	return out
}

// release ends the transfer on a node, whose process goes on.
func (w *world) release(i int) {
	n := w.own(i)
	n.result = string(Failed)
	switch {
	case n.m.Phase() == member.Committed:
		n.result = string(Committed)
	case slices.Contains(n.jobs, "published"):
		return // COMMIT came: publishing goes on to its end
	}
	w.drop(i)
}

// drop forgets what a node had of the transfer.
func (w *world) drop(i int) {
	n := w.own(i)
	n.m, n.data, n.hashed, n.ended, n.jobs = nil, nil, 0, false, nil
	n.filled, n.own, n.comparing = nil, 0, false
	for _, l := range w.links {
		if (l.node == i || l.feeder == i) && l.state != "closed" {
			l.told = l.told || l.feeder == i
			switch {
			case l.state != "ordered":
				l.state = "broken"
			case l.feeder == i:
				l.state = "closed"
			}
		}
	}
}
