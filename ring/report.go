package ring

import (
	"math"
	"time"
)

// State is how a node ended, exactly one for each requested node.
type State string

// The states of a row. Pending and Serving are never in a finished report.
const (
	Pending     State = "pending"     // not yet answered
	Serving     State = "serving"     // in the transfer
	Lost        State = "lost"        // gone, dialled again while others are served; never in a finished report
	Committed   State = "committed"   // confirmed the source's digest and switched to it
	Held        State = "held"        // confirmed that everything was in place already
	Failed      State = "failed"      // was reached, and did not end with the right bytes
	Refused     State = "refused"     // said no: authentication or policy
	Unreachable State = "unreachable" // never answered
)

// Good reports whether the node itself confirmed the right digest.
func (s State) Good() bool { return s == Committed || s == Held }

// Row is what became of one requested node.
//
// Code is Reason in one word, for programs, and "" where there is nothing to tell. It is what package ring
// has in Fault where a node cannot be talked to; what PROTOCOL.md has in "Codes" where the node itself says
// why; else one of these, to which others may be added:
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
type Row struct {
	Node    string  `json:"node"`
	State   State   `json:"state"`
	Digest  string  `json:"digest"`  // as computed by the node; "" when it confirmed none
	Bytes   int64   `json:"bytes"`   // payload it received
	Skipped int64   `json:"skipped"` // bytes it held already, as it said
	Seconds float64 `json:"seconds"` // from the start of the transfer to its final state
	Code    string  `json:"code"`    // see above
	Reason  string  `json:"reason"`
	Link    string  `json:"link"` // the link that is to blame, "" when none is

	Cause Cause `json:"-"` // Reason in its parts
	Free  int64 `json:"-"` // bytes it said are free, -1 when it does not know; once it answered
	NoSHA bool  `json:"-"` // it said that its processor has no instructions for SHA-256
}

// Unreached says that one node could not open a connection to another.
type Unreached struct {
	From   string `json:"from"`
	To     string `json:"to"`
	Port   string `json:"port"`
	Reason string `json:"reason"`
}

// Report is the outcome of one transfer, one Row per requested node in the order
// in which they were asked for. Its JSON form is the report file that a user may ask for. The caller sets
// Version, Host, Started, Image, Kept, SIF and Exit.
type Report struct {
	Transfer string  `json:"transfer"`
	Version  string  `json:"version"` // of the program that sent
	Host     string  `json:"host"`    // name of the server
	Started  string  `json:"started"` // when the command began, as RFC 3339 has it
	Image    string  `json:"image"`
	Kept     string  `json:"kept"`    // its name in the nodes' caches, "" where it is not kept
	Digest   string  `json:"digest"`  // of the root: the last blob, computed or verified by the server
	SIF      string  `json:"sif"`     // digest of the file itself where the image is a SIF, else ""
	Bytes    int64   `json:"bytes"`   // of all blobs together
	Seconds  float64 `json:"seconds"` // from the first dial to the last final state
	Exit     int     `json:"exit"`    // from Status
	Nodes    []Row   `json:"nodes"`

	// Direct counts the nodes that the server fed itself because no node could open a connection to
	// them. Unreached are pairs of which the first could not reach the second: of a push, one for each
	// node that was to be fed so; of a check, all neighbours. Unprobed are the nodes of a check that
	// could not be asked, because they speak protocol 1 or did not answer.
	Direct    int         `json:"direct"`
	Unreached []Unreached `json:"unreached"`
	Unprobed  []string    `json:"unprobed"`

	// Sent is the payload the server itself sent, Elapsed the time from the
	// first byte sent to the last confirmation; dolly's summary is made of them.
	Sent    int64         `json:"-"`
	Elapsed time.Duration `json:"-"`

	NoSHA bool `json:"-"` // the server's processor has no instructions for SHA-256
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

// Exit statuses of push and raw.
const (
	ExitAll         = 0 // every requested node confirmed itself, or as many as are enough
	ExitSource      = 1 // own or source error, nothing committed
	ExitUsage       = 2
	ExitPartial     = 3 // some committed
	ExitNone        = 4 // none committed
	ExitRefused     = 5 // all refused by authentication or policy, before any data
	ExitInterrupted = 6 // before the first commit; can be resumed
)

// Status turns the rows, and the error Send returned beside them, into the exit
// status. min is the number of good nodes that is enough; 0 means all.
func (r *Report) Status(err error, min int) int {
	good := r.Count()
	if min <= 0 || min > len(r.Nodes) {
		min = len(r.Nodes)
	}
	switch {
	case err != nil && good == 0 && IsInterrupted(err):
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

// round keeps report figures readable: milliseconds.
func round(d time.Duration) float64 { return math.Round(d.Seconds()*1000) / 1000 }
