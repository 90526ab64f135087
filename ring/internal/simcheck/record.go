// Package simcheck is what is written down of one simulated transfer, one JSON
// object a line, and the judge of it. It shares no code with the ring: what the
// ring believes of itself must not decide whether it was right.
package simcheck

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// The kinds of Event.
const (
	Run        = "run"         // first line: Nodes, Blobs, Weak, Rate, For: how long nodes are waited for
	SourceDone = "source-done" // the source was read to its end and found unchanged
	SourceBad  = "source-bad"  // the source will fail
	Fault      = "fault"       // What happened to Node (and Peer), for For (0: for good)
	Offer      = "offer"       // the sink of Node was asked what it holds: Held
	Begin      = "begin"       // Blob is begun at Off
	Write      = "write"       // N bytes of Blob were written at Off; Bad: they are not the source's
	Skip       = "skip"        // N bytes of Blob at Off were there; Bad: they are not the source's
	Commit     = "commit"      // Blob was made durable: N bytes with digest Sum
	Abort      = "abort"       // Blob was given up, N bytes are kept
	Publish    = "publish"     // everything became visible: Sums
	Close      = "close"       // the sink was closed
	Row        = "row"         // of the report: Node, State, Sum
	End        = "end"         // the sender ended with Exit
	Over       = "over"        // last line: the nodes had their time to end, too
)

// The faults. What each does to the node it happens to is the judge's business.
const (
	Kill         = "kill"          // the process of Node dies
	Return       = "return"        // and comes back
	Freeze       = "freeze"        // nothing goes in or out of Node
	Pause        = "pause"         // the same, for less than anything waits
	CutServer    = "cut-server"    // between server and Node, one way or both
	CutLink      = "cut-link"      // between Node and Peer, one way or both
	Island       = "island"        // between Node and all other nodes
	Stall        = "stall"         // the data links open between Peer and Node, no later ones
	SlowLink     = "slow-link"     // from Peer to Node: Rate
	SlowDisk     = "slow-disk"     // of Node
	Corrupt      = "corrupt"       // bytes of links from Peer to Node
	Lie          = "lie"           // Node forwards other bytes than it got
	Stutter      = "stutter"       // Node leaves whole frames out, says them twice or in another order, or ends early
	Rot          = "rot"           // what Node stored is not what it reads back
	Twin         = "twin"          // the name Node leads to the machine of Peer
	Late         = "late"          // Node is there only after For
	Rogue        = "rogue"         // Node says on control what is not true of others
	Liar         = "liar"          // Node lies wherever it decides something, as Note says
	Hang         = "hang"          // the disk of Node stands still
	Full         = "full"          // the disk of Node
	Refuse       = "refuse"        // Node refuses the offer
	ResetControl = "reset-control" // the control connection of Node
	ResetLink    = "reset-link"    // the links open from Peer to Node
	Interrupt    = "interrupt"     // of the server
	KillServer   = "kill-server"
)

// Blob is what the source has, whatever it said of it before.
type Blob struct {
	Sum  string `json:"sum"`
	Size int64  `json:"size"`
}

// Event is one line. Fields that do not apply to a kind are zero.
type Event struct {
	T     time.Duration `json:"t"` // since the start
	Kind  string        `json:"ev"`
	Node  string        `json:"node,omitempty"`
	Proc  int           `json:"proc,omitempty"` // which process of Node, from 0
	Blob  int           `json:"blob,omitempty"`
	Off   int64         `json:"off,omitempty"`
	N     int64         `json:"n,omitempty"`
	Bad   bool          `json:"bad,omitempty"`
	Sum   string        `json:"sum,omitempty"`
	Sums  []string      `json:"sums,omitempty"`
	Held  []bool        `json:"held,omitempty"`
	State string        `json:"state,omitempty"`
	Exit  int           `json:"exit,omitempty"`
	What  string        `json:"what,omitempty"`
	Peer  string        `json:"peer,omitempty"`
	For   time.Duration `json:"for,omitempty"`
	Rate  int64         `json:"rate,omitempty"` // bytes per second
	Code  string        `json:"code,omitempty"` // of Row, as in the report
	Note  string        `json:"note,omitempty"` // for people

	Nodes []string `json:"nodes,omitempty"`
	Blobs []Blob   `json:"blobs,omitempty"`
	// Direct is how many nodes the server feeds itself because no node reaches them; 0: all.
	Direct int      `json:"direct,omitempty"`
	Weak   []string `json:"weak,omitempty"` // faults the ring is not yet built to survive
}

// Encode makes the lines.
func Encode(events []Event) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	for _, ev := range events {
		e.Encode(ev) // a Buffer takes everything
	}
	return b.Bytes()
}

// Decode reads the lines; unknown fields are errors.
func Decode(r io.Reader) (events []Event, err error) {
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		d := json.NewDecoder(bytes.NewReader(s.Bytes()))
		d.DisallowUnknownFields()
		var ev Event
		if err := d.Decode(&ev); err != nil {
			return nil, fmt.Errorf("line %d: %w", len(events)+1, err)
		}
		events = append(events, ev)
	}
	return events, s.Err()
}
