package member

import (
	"github.com/dolly-img/dolly-img/ring/internal/wire"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Event is one of the Ev types: what a Machine is told.
type Event any

type (
	// EvHeld comes first: for each blob how many leading bytes the Sink has, as the ANSWER says.
	EvHeld struct{ Held []int64 }
	// EvMsg is a message of the server.
	EvMsg struct{ Msg wire.Message }
	// EvOpen says that a link which proved itself wants to feed. The first action answers it:
	// ActAccept or ActRefuse.
	EvOpen struct{ Link, Generation uint32 }
	// EvFrame says that a frame with a good CRC came. The first action answers it: ActAccept or
	// ActRefuse.
	EvFrame struct {
		Generation uint32
		Blob       uint32
		Offset     int64
		Length     int
	}
	// EvFeedEnd says that a link which had been accepted ended, with its final record or else with a
	// code and a reason.
	EvFeedEnd struct {
		Link, Generation uint32
		Fin              bool
		Code             wire.Code
		Reason           string
	}
	// EvLink is for the server: it tells of a link that this node feeds.
	EvLink struct {
		Link, Generation uint32
		State            string
		Code             wire.Code
		Reason           string
	}
	// EvSum is the running SHA-256 of what was stored of a blob. With End it is that of the whole blob,
	// and Offset the blob's size.
	EvSum struct {
		Blob   int
		Offset int64
		Sum    []byte
		End    bool
	}
	// EvReset says that ActReset was done.
	EvReset struct{}
	// EvDurable says that ActSettle was done.
	EvDurable struct{ Blob int }
	// EvPrepared says that ActPrepare was done. InPlace: nothing is left to switch.
	EvPrepared struct{ InPlace bool }
	// EvPublished says that ActPublish was done.
	EvPublished struct{}
	// EvReached answers ActReach. Code is CodeNone where the other node was reached.
	EvReached struct {
		Probe  uint32
		Code   wire.Code
		Reason string
	}
	// EvResume says that the server is back, on a new control connection.
	EvResume struct{}
	// EvFailure says that the driver could not go on.
	EvFailure struct{ Err *wire.Error }
)

// Action is one of the Act types: what a Machine wants done.
type Action any

type (
	// ActSay is for a message to the server. Without a connection to the server it is dropped:
	// EvResume has what matters said again.
	ActSay struct{ Msg wire.Message }
	// ActAccept and ActRefuse answer EvOpen and EvFrame. Status is what the link is told.
	ActAccept struct{}
	ActRefuse struct{ Status byte }
	// ActCloseFeed ends the link that feeds now.
	ActCloseFeed struct{}
	// ActReceive says that START came: the storage may begin.
	ActReceive struct{}
	// ActLink is for a link to be made to another node, and to be fed.
	ActLink struct{ Dial *wire.Dial }
	// ActUnlink ends such a link without a report.
	ActUnlink struct{ Link uint32 }
	// ActReach is for trying whether another node can be reached.
	ActReach struct{ Probe *wire.Probe }
	// ActSize says that the length of a stream became known.
	ActSize struct {
		Blob int
		Size int64
	}
	// ActGood says that the bytes of a blob below Offset may be read back from storage and passed on.
	ActGood struct {
		Blob   int
		Offset int64
	}
	// ActSettle says that the bytes of a blob are right: it is to be made durable.
	ActSettle struct {
		Blob  int
		Final v1.Descriptor
	}
	// ActReset is for going back, in every blob, to where Position says: what feeds and what is fed
	// ends, and what the window and the storage have behind it is dropped.
	ActReset struct{}
	// ActPrepare says that every blob is durable: what is left to do before COMMIT is to be done.
	ActPrepare struct{}
	// ActPublish says that COMMIT came. What was verified is to be published.
	ActPublish struct{}
	// ActRelease says that the transfer is over for this node.
	ActRelease struct{}
)
