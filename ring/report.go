package ring

import (
	"encoding/json"
	"math"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/coordinator"
	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// State is how far a node is, or how it ended. Each requested node has exactly one.
type State string

// The states of a row. Pending, Serving and Lost are never in a finished report, but that Pending is a
// node that a check (Config.Check) would serve.
const (
	Pending     State = "pending"     // not yet answered
	Serving     State = "serving"     // in the transfer
	Lost        State = "lost"        // gone, and dialled again while others are served
	Committed   State = "committed"   // confirmed the source's digest and switched to it
	Held        State = "held"        // confirmed that everything was in place already
	Failed      State = "failed"      // was reached, and did not end with the right bytes
	Refused     State = "refused"     // said no: authentication or policy
	Unreachable State = "unreachable" // never answered
)

// Good reports whether the node itself confirmed the right digest.
func (s State) Good() bool { return s == Committed || s == Held }

// TargetState is what a target is that is overwritten while bytes come (Overwriter).
type TargetState string

// The states of a target.
const (
	TargetUntouched   TargetState = "untouched"   // this transfer has written nothing to it
	TargetOverwritten TargetState = "overwritten" // it is half-written, and cannot be used
	TargetComplete    TargetState = "complete"    // it has what was sent
	TargetUnknown     TargetState = "unknown"     // nobody could say: it may be any of these
)

// Some codes of rows, by which callers decide. CodeSpace and CodeInUse are of PROTOCOL.md, too.
const (
	CodeSpace       = string(wire.CodeSpace)
	CodeInUse       = string(wire.CodeInUse)
	CodeLost        = string(coordinator.KindLost)
	CodeInterrupted = string(coordinator.KindInterrupted)
	CodeSource      = string(coordinator.KindSource)
)

// Row is what became of one requested node.
//
// Code is Reason in one word, for programs, and "" where there is nothing to tell. Where a node cannot be
// talked to it is a Fault. Where the node itself says why it is one of "Codes" in PROTOCOL.md. Else it is
// one of these, to which others may be added:
//
//	contact        it cannot be talked to, for a reason that has no word
//	not-asked      the transfer failed before any node was asked
//	same-machine   two names are one machine
//	unanswered     it did not answer the offer
//	space          there is not enough room
//	protocol       it said what a node may not say
//	lost           its control connection broke, or it restarted, and it did not come back
//	returned       it was lost, and came back
//	link           a link into it was lost
//	unfed          neither a node nor the server could feed it
//	unreached      no node reaches it, and the server feeds enough others itself
//	changed        bytes were changed on a link that it is an end of
//	changed-twice  the same, for the second of its links
//	falls          bytes do not stay as they are sent to it
//	slow           it is slower than the others
//	mute           it is there, and does not say what it has to say
//	stuck          it does nothing with what it is sent
//	mismatch       its digest is not the source's
//	unconfirmed    it was told to commit, and did not say that it has
//	interrupted    somebody ended the transfer
//	source         the source failed or changed
//	not-read-back  the caller of Send says so: its device was written, and not read again to compare it
//	unplanned      it is not in the plan that was confirmed, or nobody confirmed the plan
type Row struct {
	// Node is the Name of the Peer.
	Node  string `json:"node"`
	State State  `json:"state"`
	// Digest is that of the last blob as the node computed it. It is "" when the node confirmed none.
	Digest string `json:"digest"`
	// Bytes is the payload that the node received, Skipped what it said it had before.
	Bytes   int64 `json:"bytes"`
	Skipped int64 `json:"skipped"`
	// Seconds is the time from the start of the transfer to the node's final state.
	Seconds float64 `json:"seconds"`
	Code    string  `json:"code"`
	Reason  string  `json:"reason"`
	// Link is the link that is to blame, as in "node3 -> node4". It is "" when none is.
	Link string `json:"link"`

	// Facts is what the node said that it would overwrite (Targeter). It is empty of a node that would overwrite nothing.
	Facts json.RawMessage `json:"facts,omitempty"`
	// Target is what became of it. It is "" in a transfer that overwrites nothing, and never in one that somebody confirms
	// (Config.Confirm).
	Target TargetState `json:"target,omitempty"`

	// Cause is Reason in its parts.
	Cause Cause `json:"-"`
	// Free is how many bytes the node said are free where the blobs would go. It is -1 when the node
	// does not know, and means nothing before it answered.
	Free int64 `json:"-"`
	// NoSHA says that the node's processor has no instructions for SHA-256.
	NoSHA bool `json:"-"`
}

// Unreached says that one node could not open a connection to another.
type Unreached struct {
	// From and To are the names of the nodes, Port is where From dialled.
	From string `json:"from"`
	To   string `json:"to"`
	Port string `json:"port"`
	// Reason is what From said of it.
	Reason string `json:"reason"`
}

// Report is the outcome of one transfer. Its JSON form is the report file that a user may ask for. The
// caller of Send sets Version, Host, Started, Image, Kept, SHA256, SIF, Unsynced and Exit.
type Report struct {
	// Transfer is the transfer's id in hexadecimal.
	Transfer string `json:"transfer"`
	// Version is that of the program that sent, Host the name of the server.
	Version string `json:"version"`
	Host    string `json:"host"`
	// Started is when the command began, as RFC 3339 writes a time.
	Started string `json:"started"`
	// Image is what was asked for. Kept is its name in the nodes' caches, and "" where it is not kept.
	Image string `json:"image"`
	Kept  string `json:"kept"`
	// Digest is that of the last blob, which is the root of an image. The server computed or verified it.
	Digest string `json:"digest"`
	// SHA256 is the digest of what raw sent as sha256sum has it, "" of an image or where it was not computed. Digest is
	// another one if a file travelled in leaves.
	SHA256 string `json:"sha256"`
	// SIF is the digest of the file itself where the image is a SIF, else "".
	SIF string `json:"sif"`
	// Bytes is the size of all blobs together.
	Bytes int64 `json:"bytes"`
	// Seconds is the time from the first dial to the last final state.
	Seconds float64 `json:"seconds"`
	// Exit is what Status returned.
	Exit int `json:"exit"`
	// Unsynced says that the nodes were told not to make durable what they have before they confirm it.
	Unsynced bool `json:"unsynced"`
	// Nodes has one row per requested node, in the order of Config.Nodes.
	Nodes []Row `json:"nodes"`

	// Direct counts the nodes that the server fed itself because no node could open a connection to
	// them.
	Direct int `json:"direct"`
	// Unreached are pairs of which the first could not reach the second: of a push, one for each
	// node that was to be fed so; of a check, all neighbours.
	Unreached []Unreached `json:"unreached"`
	// Unprobed are the nodes of a check that could not be asked, because they speak protocol 1 or did
	// not answer.
	Unprobed []string `json:"unprobed"`

	// Sent is the payload that the server itself sent. Waited is the time from the start of the transfer to the first byte
	// that is read, in which nodes were asked, a plan was confirmed, or another transfer ended. Elapsed is the time from then to
	// the last confirmation. The summary that dolly prints is made of Sent and Elapsed.
	Sent            int64         `json:"-"`
	Waited, Elapsed time.Duration `json:"-"`

	// Plan is what a check found. The caller of Send sets it.
	Plan *Plan `json:"plan,omitempty"`

	// NoSHA says that the server's processor has no instructions for SHA-256.
	NoSHA bool `json:"-"`
}

// Plan is what a check (Config.Check) found, in figures. Each node has a Row beside it: one that would be served is
// Pending, and one that would overwrite a device says in Facts what that is and holds.
type Plan struct {
	// Holds is what the source holds, of a transfer to devices, as in `gpt, ext4 "root"`.
	Holds string `json:"holds,omitempty"`
	// Serve counts the nodes that would be served, Hold those that hold everything.
	Serve int `json:"serve"`
	Hold  int `json:"hold"`
	// Move is how many bytes would move over all links, at most, and Send how many of them the server would send. Move is -1
	// where the length of the source is not known.
	Move int64 `json:"move"`
	Send int64 `json:"send"`
	// Rate is the expected speed in bytes per second, and Seconds the time at that speed; 0 is unknown. Limit says what sets it,
	// or why it is not known.
	Rate    int64   `json:"rate"`
	Seconds float64 `json:"seconds"`
	Limit   string  `json:"limit"`
	// Free is how many bytes are free on each node that says so, where files would go.
	Free map[string]int64 `json:"free,omitempty"`
}

// Count returns how many nodes confirmed the right digest.
func (r *Report) Count() int {
	n := 0
	for _, row := range r.Nodes {
		if row.State.Good() {
			n++
		}
	}
	return n
}

// Exit statuses of push and raw. Scripts rely on them: numbers are added, and never change.
const (
	ExitAll         = 0 // every requested node confirmed the right digest, or as many as are enough
	ExitSource      = 1 // an error here, or of the source; nothing was committed
	ExitUsage       = 2 // the command line is wrong, or nobody agreed to what it would overwrite
	ExitPartial     = 3 // some nodes committed
	ExitNone        = 4 // no node committed
	ExitRefused     = 5 // all nodes refused, by authentication or policy, before any data
	ExitInterrupted = 6 // the sender was stopped before the first commit; the same command goes on
)

// Status turns the rows, and the error that Send returned beside them, into the exit
// status. min is the number of good nodes that is enough; 0 means all.
func (r *Report) Status(err error, min int) int {
	good := r.Count()
	if min <= 0 || min > len(r.Nodes) {
		min = len(r.Nodes)
	}
	switch {
	case err != nil && good == 0 && isInterrupted(err):
		return ExitInterrupted
	case err != nil && good == 0:
		return ExitSource
	case good >= min:
		return ExitAll
	case good > 0:
		return ExitPartial
	}
	for _, row := range r.Nodes {
		if row.State != Refused {
			return ExitNone
		}
	}
	return ExitRefused
}

// round returns seconds to the millisecond, which keeps reports readable.
func round(d time.Duration) float64 { return math.Round(d.Seconds()*1000) / 1000 }
