package coordinator

import (
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/opencontainers/go-digest"
)

// Event is one of the Ev types below: what a Machine is told.
type Event any

// What the coordinator is told. Node numbers count from 1.
type (
	EvWelcome struct { // HELLO was answered, of the first dial or of a later one
		Node     int
		Instance wire.ID
		State    string
		Reason   string
		Addr     string // that it answered at
		Version  int    // of the protocol, that both ends speak
	}
	EvAway struct { // a dial failed, and is tried again for as long as was asked for
		Node  int
		Cause Cause
	}
	EvNoContact struct { // the first dials failed
		Node    int
		State   State // Unreachable or Refused
		Lasting bool  // it has no address: there is nothing to dial again
		Cause   Cause
	}
	EvAnswer struct {
		Node   int
		Held   []int64
		Free   int64
		Replay bool
		Change bool // something is to be switched where everything is held
		Code   wire.Code
		Reason string
	}
	EvDeadline struct{} // time to start with those that answered
	EvTick     struct { // a few times a second
		Now time.Duration // since the transfer began
	}
	EvNeed struct {
		Node             int
		Link, Generation uint32
		Needs            [][2]int64
	}
	EvLink struct {
		Node             int // who reports; 0: the server about its own links
		Link, Generation uint32
		State            string
		Code             wire.Code
		Reason           string
	}
	EvReport struct {
		Node   int // 0: the server of itself
		Report wire.Report
	}
	EvProbed struct { // code is wire.CodeNone when the node was reached
		Node   int // who was asked
		Probe  uint32
		Code   wire.Code
		Reason string
	}
	EvFallback struct {
		Node int
		Msg  *wire.Fallback
	}
	EvVerified struct {
		Node int
		Msg  *wire.Verified
	}
	EvCommitted struct {
		Node   int
		Digest string
	}
	EvFail struct {
		Node   int
		Code   wire.Code
		Reason string
	}
	EvControlLost struct {
		Node   int
		Silent bool // it did not end, it said nothing for too long
		Reason string
	}
	EvResumed struct { // the answer to ActResume; state "" when there was none
		Node     int
		Instance wire.ID
		State    string
		Digest   string
		Cause    Cause
	}
	EvSourceDone struct { // read to its end, unchanged
		Finals []digest.Digest
	}
	EvSourceFailed struct {
		Err  error
		Kept bool // the bytes before it were right
	}
	EvInterrupt struct{}
)

// Action is one of the Act types below: what a Machine wants done.
type Action any

// What the coordinator wants done.
type (
	ActSend struct {
		Node int
		Msg  wire.Message
	}
	ActOffer struct{ Node int } // send the OFFER
	ActPlan  struct {           // the chain is made; the source is read where read is true
		Nodes []int
		Read  []bool
	}
	ActFeed struct { // FEED to node, with the link's secret
		Node             int
		Link, Generation uint32
		From             int
	}
	ActDial struct { // DIAL to the feeder; 0: the server does it
		Feeder, Node     int
		Link, Generation uint32
		Needs            [][2]int64
		Lag              bool
	}
	ActUndial struct {
		Feeder int
		Link   uint32
	}
	ActMarks  struct{ Node int } // send all marks so far
	ActSource struct{}           // begin to read the source
	ActResume struct {           // dial the control connection again
		Node      int
		Committed bool // a COMMIT is unconfirmed: ask for 15 s, not for 1
	}
	ActRedial struct{ Node int } // dial it every 2 s until it answers
	ActHangup struct{ Node int }
	ActProbe  struct { // PROBE to node from
		From, To int
		Probe    uint32
	}
	ActFinal struct{ Node int } // its row is final
	ActNode  struct {           // the State of a node changed
		Node  int
		State State
		Cause Cause
	}
	ActLink struct { // a data link was opened, or lost, or replaced, or is blamed
		Link      string
		Up, Again bool // it was made; in place of another one
		Reason    string
	}
	ActCommit struct{} // the first node is told to commit
	ActFinish struct{ Err error }
)
