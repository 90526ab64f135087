package member

import (
	"crypto/sha256"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/dolly-img/dolly-img/ring/leaf"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Event is one of the Ev types, which tell a Machine what happened.
type Event any

type (
	// EvHeld is the first event. It has what the ANSWER says: for each blob how many leading bytes the Sink has, which leaves
	// behind them, and the target that will be overwritten. Sets is nil where it has none.
	EvHeld struct {
		Held   []int64
		Sets   []*leaf.Set
		Target []byte
	}
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
		Zero       bool // the bytes are zeros, and the frame has no payload
	}
	// EvFeedEnd says that an accepted link ended: with its final record, or else with a code and a reason.
	EvFeedEnd struct {
		Link, Generation uint32
		Fin              bool
		Code             wire.Code
		Reason           string
	}
	// EvLink is the state of a link that this node feeds, for the server.
	EvLink struct {
		Link, Generation uint32
		State            string
		Code             wire.Code
		Reason           string
	}
	// EvSum is the running SHA-256 of the bytes of a blob below Offset, which were hashed and stored. If End is true,
	// these are all bytes of the blob.
	EvSum struct {
		Blob   int
		Offset int64
		Sum    []byte
		End    bool
	}
	// EvOwn is the sum of the next leaf of what the node has in place of a blob, after ActCompare.
	EvOwn struct {
		Blob int
		Sum  [sha256.Size]byte
	}
	// EvHashed says that there is nothing more to hash for ActCompare.
	EvHashed struct{}
	// EvReset says that ActReset was done.
	EvReset struct{}
	// EvDurable says that ActSettle was done.
	EvDurable struct{ Blob int }
	// EvPrepared says that ActPrepare was done. InPlace says that nothing is left to switch.
	EvPrepared struct{ InPlace bool }
	// EvPublished says that ActPublish was done.
	EvPublished struct{}
	// EvReached answers ActReach. Code is CodeNone if the other node was reached.
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

// Action is one of the Act types, which tell the driver what to do.
type Action any

type (
	// ActSay sends a message to the server. Without a connection to the server the message is dropped. After
	// EvResume the Machine says again what matters.
	ActSay struct{ Msg wire.Message }
	// ActAccept and ActRefuse answer EvOpen and EvFrame. Status goes to the other end of the link.
	ActAccept struct{}
	ActRefuse struct{ Status byte }
	// ActCloseFeed ends the link that feeds now.
	ActCloseFeed struct{}
	// ActReceive says that START came, so that the storage may begin.
	ActReceive struct{}
	// ActCompare hashes what the node has in place of the blobs in leaves, from the front. It ends with EvHashed, or when
	// ActCompared comes before.
	ActCompare struct{}
	// ActCompared says that the Position of blobs in leaves has their Set now.
	ActCompared struct{}
	// ActLink makes a link to another node and feeds it.
	ActLink struct{ Dial *wire.Dial }
	// ActUnlink ends such a link without a report.
	ActUnlink struct{ Link uint32 }
	// ActReach tries whether another node can be reached.
	ActReach struct{ Probe *wire.Probe }
	// ActSize says that the length of a stream became known.
	ActSize struct {
		Blob int
		Size int64
	}
	// ActGood says that the bytes of a blob below Offset are good: they may be read back from storage and passed on.
	ActGood struct {
		Blob   int
		Offset int64
	}
	// ActSettle makes a blob durable. Its bytes are right.
	ActSettle struct {
		Blob  int
		Final v1.Descriptor
	}
	// ActReset goes back to the Position of every blob. The feed ends, all links end that this node feeds, and the window
	// and the storage drop what they have behind the positions.
	ActReset struct{}
	// ActPrepare says that every blob is durable. The driver does now what is left to do before COMMIT.
	ActPrepare struct{}
	// ActPublish says that COMMIT came, and publishes what was verified.
	ActPublish struct{}
	// ActRelease says that the transfer is over for this node.
	ActRelease struct{}
)
