package member

import (
	"github.com/dolly-img/dolly-img/ring/internal/wire"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Event is one of the Ev types below: what a Machine is told.
type Event any

// What a Machine is told.
type (
	EvHeld struct{ Held []int64 } // the ANSWER's
	EvMsg  struct{ Msg wire.Message }
	EvOpen struct{ Link, Generation uint32 } // an authenticated link wants to feed
	// EvFrame's CRC was good.
	EvFrame struct {
		Generation uint32
		Blob       uint32
		Offset     int64
		Length     int
	}
	EvFeedEnd struct {
		Link, Generation uint32
		Fin              bool
		Code             wire.Code
		Reason           string
	}
	EvLink struct { // about a link this node feeds
		Link, Generation uint32
		State            string
		Code             wire.Code
		Reason           string
	}
	EvSum struct { // the running sum of what was stored
		Blob   int
		Offset int64
		Sum    []byte
		End    bool // Offset is the blob's size
	}
	EvDurable   struct{ Blob int }
	EvReset     struct{} // ActReset was done
	EvPrepared  struct{ InPlace bool }
	EvPublished struct{}
	EvReached   struct { // the answer to ActReach; Code is CodeNone when it was reached
		Probe  uint32
		Code   wire.Code
		Reason string
	}
	EvResume  struct{} // the server is back on a new control connection
	EvFailure struct{ Err *wire.Error }
)

// Action is one of the Act types below: what a Machine wants done.
type Action any

// What a Machine wants done; wire messages go to the server with ActSay.
type (
	ActSay       struct{ Msg wire.Message }
	ActAccept    struct{} // of EvOpen and EvFrame: yes
	ActRefuse    struct{ Status byte }
	ActCloseFeed struct{} // whatever feeds now
	ActReceive   struct{} // START came: the store may begin
	ActLink      struct{ Dial *wire.Dial }
	ActUnlink    struct{ Link uint32 }
	ActReach     struct{ Probe *wire.Probe } // try whether a node can be reached
	ActSize      struct {                    // a stream's length became known
		Blob int
		Size int64
	}
	ActGood struct { // bytes of Blob below Offset may be read back from storage
		Blob   int
		Offset int64
	}
	ActSettle struct { // the blob is right: make it durable
		Blob  int
		Final v1.Descriptor
	}
	ActReset   struct{} // end what feeds and is fed, go back to what Position says
	ActPrepare struct{}
	ActPublish struct{}
	ActRelease struct{} // BYE or ABORT: the transfer is over for this node
)
