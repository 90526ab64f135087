package coordinator

import (
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/dolly-img/dolly-img/ring/leaf"
	"github.com/opencontainers/go-digest"
)

// Event is one of the Ev types below: what a Machine is told.
type Event any

// What a Machine is told. Node numbers count from 1; where the server may be meant, too, it is 0.
type (
	// EvWelcome says that a node answered HELLO, of the first dial or of a later one, at Addr. Version is the
	// protocol that both ends speak.
	EvWelcome struct {
		Node     int
		Instance wire.ID
		State    string
		Reason   string
		Addr     string
		Version  int
		NoSHA    bool
	}
	// EvAway says that a dial failed, and is tried again for as long as was asked for.
	EvAway struct {
		Node  int
		Cause Cause
	}
	// EvNoContact says that the first dials failed: State is Unreachable or Refused. Lasting says that the node has no
	// address, so that there is nothing to dial again.
	EvNoContact struct {
		Node    int
		State   State
		Lasting bool
		Cause   Cause
	}
	// EvAnswer is an ANSWER. Change says that there is something to switch where everything is held.
	EvAnswer struct {
		Node   int
		Held   []int64
		Free   int64
		Replay bool
		Change bool
		Code   wire.Code
		Reason string
		Leaves []wire.Leaves
		Target []byte // what the node would overwrite
	}
	// EvConfirmed answers ActConfirm. Err is nil if the plan was confirmed.
	EvConfirmed struct{ Err error }
	// EvDeadline says that it is time to start with the nodes that have answered.
	EvDeadline struct{}
	// EvTick comes a few times a second. Now is the time since the transfer began.
	EvTick struct{ Now time.Duration }
	// EvNeed is a NEED.
	EvNeed struct {
		Node             int
		Link, Generation uint32
		Needs            [][2]int64
		Leaves           []wire.Leaves
	}
	// EvLink is a LINK of a node, or what the server has to say about a link of its own.
	EvLink struct {
		Node             int
		Link, Generation uint32
		State            string
		Code             wire.Code
		Reason           string
	}
	// EvReport is a REPORT of a node, or the same of the server, which has received what it has read of a stream.
	EvReport struct {
		Node   int
		Report wire.Report
	}
	// EvUndialled says that a node has surely read the UNDIAL of a link that it fed.
	EvUndialled struct {
		Node int
		Link uint32
	}
	// EvProbed is a PROBED of the node that was asked. Code is wire.CodeNone when the other node was reached.
	EvProbed struct {
		Node   int
		Probe  uint32
		Code   wire.Code
		Reason string
	}
	// EvFallback is a FALLBACK. Unsent says that nobody was sent the mark that it is about.
	EvFallback struct {
		Node   int
		Msg    *wire.Fallback
		Unsent bool
	}
	// EvVerified is a VERIFIED.
	EvVerified struct {
		Node int
		Msg  *wire.Verified
	}
	// EvCommitted is a COMMITTED.
	EvCommitted struct {
		Node   int
		Digest string
	}
	// EvFail is a FAIL.
	EvFail struct {
		Node   int
		Code   wire.Code
		Reason string
	}
	// EvControlLost says that a control connection broke, or, with Silent, that nothing came over it for too long.
	EvControlLost struct {
		Node   int
		Silent bool
		Reason string
	}
	// EvResumed answers ActResume, and has its Committed. State is "" when nobody answered; Cause says why then, or
	// what the node says.
	EvResumed struct {
		Node      int
		Committed bool
		Instance  wire.ID
		State     string
		Digest    string
		Cause     Cause
	}
	// EvRate is how many bytes per second the server sends at most from now on, as Config.Rate has it. It causes nothing.
	EvRate struct{ Rate int64 }
	// EvMarked says that the first marks are about to be sent to the nodes. It causes nothing.
	EvMarked struct{}
	// EvSourceDone says that the source was read to its end, unchanged, and which digests and sizes its blobs have.
	EvSourceDone struct {
		Finals []digest.Digest
		Sizes  []int64
	}
	// EvSourceFailed says that the source failed or changed. Kept says that the bytes before that were right.
	EvSourceFailed struct {
		Err  error
		Kept bool
	}
	// EvCompared is a COMPARED.
	EvCompared struct {
		Node   int
		Leaves []wire.Leaves
		Bytes  int64
	}
	// EvCompareRead says that ActCompare was done.
	EvCompareRead struct{}
	// EvInterrupt says that somebody wants the transfer to end.
	EvInterrupt struct{}
)

// Action is one of the Act types below: what a Machine wants done.
type Action any

// What a Machine wants done.
type (
	// ActSend sends a message to a node.
	ActSend struct {
		Node int
		Msg  wire.Message
	}
	// ActOffer sends a node the OFFER.
	ActOffer struct{ Node int }
	// ActConfirm says that the plan is closed. Nothing moves before EvConfirmed.
	ActConfirm struct{}
	// ActPlan says that the chain is made. The blobs for which Read is true are read from the source.
	ActPlan struct {
		Nodes []int
		Read  []bool
	}
	// ActFeed sends FEED, with a secret of the link, to a node that From is likely to feed.
	ActFeed struct {
		Node             int
		Link, Generation uint32
		From             int
	}
	// ActDial sends DIAL to the feeder; the server dials itself where that is 0.
	ActDial struct {
		Feeder, Node     int
		Link, Generation uint32
		Needs            [][2]int64
		Leaves           []wire.Leaves
		Lag              bool
	}
	// ActUndial sends UNDIAL to the feeder, and EvUndialled says when that was read. The server ends the link itself where the
	// feeder is 0.
	ActUndial struct {
		Feeder int
		Link   uint32
	}
	// ActMarks sends a node all marks that there are.
	ActMarks struct{ Node int }
	// ActCompare reads the source for its marks, and sends them to the nodes.
	ActCompare struct{}
	// ActSource begins to read the source. Common has, where there are some, the leaves of each blob that nobody lacks.
	ActSource struct{ Common []*leaf.Set }
	// ActResume dials the control connection again. Committed says that a COMMIT is unconfirmed: the node is asked for
	// ConfirmFor instead of a second.
	ActResume struct {
		Node      int
		Committed bool
	}
	// ActRedial dials a node every 2 s until it answers.
	ActRedial struct{ Node int }
	// ActHangup closes a control connection when all that was sent is out.
	ActHangup struct{ Node int }
	// ActProbe sends PROBE about node To to node From.
	ActProbe struct {
		From, To int
		Probe    uint32
	}
	// ActFinal says that the row of a node is final.
	ActFinal struct{ Node int }
	// ActNode says that the state of a node changed.
	ActNode struct {
		Node  int
		State State
		Cause Cause
	}
	// ActLink says that a data link was opened, or lost, or replaced, or is blamed. Up says that it was made, Again that it
	// was made in place of another one.
	ActLink struct {
		Link      string
		Up, Again bool
		Reason    string
	}
	// ActCommit says that the first node is told to commit.
	ActCommit struct{}
	// ActFinish ends the transfer. Err is nil when the source was read to its end.
	ActFinish struct{ Err error }
)
