package ring

import (
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/opencontainers/go-digest"
)

// What the coordinator is told. Node numbers count from 1.
type (
	evWelcome struct { // HELLO was answered, of the first dial or of a later one
		node     int
		instance wire.ID
		state    string
		reason   string
		addr     string // that it answered at
		version  int    // of the protocol, that both ends speak
	}
	evAway struct { // a dial failed, and is tried again for as long as was asked for
		node  int
		cause Cause
	}
	evNoContact struct { // the first dials failed
		node    int
		state   State // Unreachable or Refused
		lasting bool  // it has no address: there is nothing to dial again
		cause   Cause
	}
	evAnswer struct {
		node   int
		held   []int64
		free   int64
		replay bool
		change bool // something is to be switched where everything is held
		code   wire.Code
		reason string
	}
	evDeadline struct{} // time to start with those that answered
	evTick     struct { // a few times a second
		now time.Duration // since the transfer began
	}
	evNeed struct {
		node      int
		link, gen uint32
		needs     [][2]int64
	}
	evLink struct {
		node      int // who reports; 0: the server about its own links
		link, gen uint32
		state     string
		code      wire.Code
		reason    string
	}
	evReport struct {
		node   int // 0: the server of itself
		report wire.Report
	}
	evProbed struct { // code is wire.CodeNone when the node was reached
		node   int // who was asked
		probe  uint32
		code   wire.Code
		reason string
	}
	evFallback struct {
		node int
		msg  *wire.Fallback
	}
	evVerified struct {
		node int
		msg  *wire.Verified
	}
	evCommitted struct {
		node   int
		digest string
	}
	evFail struct {
		node   int
		code   wire.Code
		reason string
	}
	evControlLost struct {
		node   int
		silent bool // it did not end, it said nothing for too long
		reason string
	}
	evResumed struct { // the answer to actResume; state "" when there was none
		node     int
		instance wire.ID
		state    string
		digest   string
		cause    Cause
	}
	evSourceDone struct { // read to its end, unchanged
		finals []digest.Digest
	}
	evSourceFailed struct{ err error } // which is an *unreadable where the bytes before it were right
	evInterrupt    struct{}
)

// What the coordinator wants done.
type action any

type (
	actSend struct {
		node int
		msg  wire.Message
	}
	actOffer struct{ node int } // send the OFFER
	actPlan  struct {           // the chain is made; the source is read where read is true
		nodes []int
		read  []bool
	}
	actFeed struct { // FEED to node, with the link's secret
		node      int
		link, gen uint32
		from      int
	}
	actDial struct { // DIAL to the feeder; 0: the server does it
		feeder, node int
		link, gen    uint32
		needs        [][2]int64
		lag          bool
	}
	actUndial struct {
		feeder int
		link   uint32
	}
	actMarks  struct{ node int } // send all marks so far
	actSource struct{}           // begin to read the source
	actResume struct {           // dial the control connection again
		node      int
		committed bool // a COMMIT is unconfirmed: ask for 15 s, not for 1
	}
	actRedial struct{ node int } // dial it every 2 s until it answers
	actHangup struct{ node int }
	actProbe  struct { // PROBE to node from
		from, to int
		probe    uint32
	}
	actFinal  struct{ node int } // its row is final
	actEvent  struct{ ev Event }
	actFinish struct{ err error }
)
