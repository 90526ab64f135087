package coordinator

import (
	"errors"
	"slices"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/opencontainers/go-digest"
)

// Config is what the coordinator has to know of a transfer beside its blobs.
type Config struct {
	Nodes     []Peer // in chain order
	Straggler Straggler
	Retries   int   // how often a lost node is taken back
	MaxDirect int   // nodes that the server feeds because no node reaches them, at most; 0: no limit, -1: none
	Rate      int64 // bytes per second the server sends at most; 0: no limit
	Check     bool  // ask the nodes, move nothing
	Confirm   bool  // have the plan confirmed before anything moves
	// Same reports whether a node that was lost would overwrite what it would have by the plan.
	Same      func(planned, now []byte) bool
	MarkEvery int64 // the distance of marks, in bytes
	Compare   bool  // nodes compare what they have with what will be sent, which is one blob in leaves, before the start
	NoSHA     bool  // the server's processor has no instructions for SHA-256
}

// Peer is one requested node.
type Peer struct {
	Name  string
	Dials string // where it is dialled, for rows
	Port  string // of its first address
}

// Straggler is what becomes of a node that is slower than the others.
type Straggler string

// The ways to treat a slow node; "" is Demote.
const (
	Demote Straggler = "demote" // serve it behind the others
	Drop   Straggler = "drop"   // fail it
	Wait   Straggler = "wait"   // let it be
)

// ErrInterrupted ends a transfer that was interrupted before the first node was told to commit.
var ErrInterrupted = errors.New("interrupted")

// State is how far a node is, or how it ended.
type State string

// The states of a row. Pending, Serving and Lost are never final.
const (
	Pending     State = "pending"     // not yet answered
	Serving     State = "serving"     // in the transfer
	Lost        State = "lost"        // gone, dialled again while others are served
	Committed   State = "committed"   // confirmed the source's digest and switched to it
	Held        State = "held"        // confirmed that everything was in place already
	Failed      State = "failed"      // was reached, and did not end with the right bytes
	Refused     State = "refused"     // said no: authentication or policy
	Unreachable State = "unreachable" // never answered
)

// Good reports whether the node itself confirmed the right digest.
func (s State) Good() bool { return s == Committed || s == Held }

// Row is what became of one node.
type Row struct {
	State   State
	Digest  string           // as computed by the node; "" when it confirmed none
	Bytes   int64            // payload it received
	Skipped int64            // bytes it held already, as it said
	Free    int64            // bytes it said are free, -1 when it does not know; once it answered
	NoSHA   bool             // it said that its processor has no instructions for SHA-256
	Target  string           // what it said that it would overwrite, once it answered
	Became  wire.TargetState // what became of that, once the row is final
	Cause   Cause
	Link    string // the link that is to blame, "" when none is
}

// Limit is what a transfer, or one node of it, waits for most of the time.
type Limit string

// The limits of a transfer.
const (
	LimitUnknown   Limit = ""
	LimitProcessor Limit = "processor"
	LimitHash      Limit = "hash" // a processor without SHA instructions, which hashes no faster
	LimitDisk      Limit = "disk"
	LimitNetwork   Limit = "network"
	LimitPolicy    Limit = "policy" // the rate in the policy of a node
	LimitRate      Limit = "rate"   // Config.Rate
	LimitSource    Limit = "source" // the server reads what it sends no faster
)

// Unreached says that one node could not open a connection to another.
type Unreached struct {
	From, To int
	Port     string
	Reason   string
}

// Progress is how far the nodes are.
type Progress struct {
	Least   int64 // bytes that the slowest node that is still served holds; -1: none is served
	Done    int   // nodes that have everything
	Serving int   // nodes that are in the transfer
	Checked int64 // bytes that the slowest of those that read back what they stored has compared; 0: none does
	// Compares is how many nodes compare what they have before the start, and Compared how many bytes the slowest of them has.
	Compares int
	Compared int64
}

// Row is what is known of node i by now.
func (c *Machine) Row(i int) Row { return c.nodes[i].row }

// Alive says whether the control connection of node i is in use.
func (c *Machine) Alive(i int) bool { return c.nodes[i].contact.alive }

// Good returns what node i has said to be right: all that it lacked before byte off of a blob. It may say anything; before it
// has said something, that is where the first blob begins that it lacks. If ok is false, the node needs no marks.
func (c *Machine) Good(i int) (blob int, off int64, ok bool) {
	n := &c.nodes[i]
	if n.contact.alive && n.phase == phReady && n.compared.waits() {
		return n.holdings.begins, n.compared.good, true
	}
	if !n.contact.alive || !n.holdings.lacks || n.phase != phServing {
		return 0, 0, false
	}
	if said := n.progress.report; said.Blob >= n.holdings.begins {
		return said.Blob, said.Good, true
	}
	return n.holdings.begins, 0, true
}

// Digest is that of the last blob as the source was read; "" before EvSourceDone.
func (c *Machine) Digest() digest.Digest {
	if !c.sourceDone {
		return ""
	}
	return c.finals[len(c.finals)-1]
}

// Progress says how far the nodes are.
func (c *Machine) Progress() Progress {
	p := Progress{Least: -1}
	for i := 1; i < len(c.nodes); i++ {
		n := &c.nodes[i]
		switch {
		case n.phase == phReady && n.compared.waits():
			if p.Compares++; p.Compares == 1 || n.compared.good < p.Compared {
				p.Compared = n.compared.good
			}
		case n.phase == phFinal && n.row.State.Good(), n.phase == phVerified, n.phase == phCommitting:
			p.Done++
			p.Serving++
		case n.phase == phServing:
			p.Serving++
			if checked := n.progress.report.Checked; checked > 0 && (p.Checked == 0 || checked < p.Checked) {
				p.Checked = checked
			}
			if have := n.progress.report.Received + n.row.Skipped; p.Least < 0 || have < p.Least {
				p.Least = have
			}
		}
	}
	return p
}

// Heard turns a message of node i into an event; false says that it is none that a node may send.
func Heard(i int, m wire.Message) (Event, bool) {
	switch m := m.(type) {
	case *wire.Answer:
		return EvAnswer{i, m.Held, m.Free, m.Replay, m.Switch, m.Code, wire.Printable(m.Reason), m.Leaves, m.Target}, true
	case *wire.Need:
		return EvNeed{i, m.Link, m.Generation, m.Needs, m.Leaves}, true
	case *wire.Link:
		return EvLink{i, m.Link, m.Generation, m.State, m.Code, wire.Printable(m.Reason)}, true
	case *wire.Report:
		r := *m
		r.Wait, r.Links = r.Wait.OrUnknown(), r.Links[:min(len(r.Links), maxLinks)]
		return EvReport{i, r}, true
	case *wire.Compared:
		return EvCompared{i, m.Leaves, m.Bytes}, true
	case *wire.Probed:
		return EvProbed{i, m.Probe, m.Code, wire.Printable(m.Reason)}, true
	case *wire.Fallback:
		return EvFallback{Node: i, Msg: m}, true
	case *wire.Verified:
		if !slices.ContainsFunc(m.Digests, func(d string) bool { return len(d) > maxDigest }) {
			return EvVerified{i, m}, true
		}
	case *wire.Committed:
		return EvCommitted{i, wire.Printable(m.Digest)}, true
	case *wire.Fail:
		return EvFail{i, m.Code, wire.Printable(m.Reason)}, true
	}
	return nil, false
}

// maxLinks is how many links a node may tell of: those that it may feed (PROTOCOL.md section 3), and as many that ended.
const maxLinks = 2 * 64

// maxDigest is longer than any digest this side computes.
const maxDigest = 200
