package ring

import (
	"github.com/dolly-img/dolly-img/ring/internal/wire"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// What a member is told.
type (
	meHeld struct{ held []int64 } // the ANSWER's
	meMsg  struct{ msg wire.Message }
	meOpen struct{ link, gen uint32 } // an authenticated link wants to feed
	// meFrame's CRC was good.
	meFrame struct {
		gen  uint32
		blob uint32
		off  int64
		n    int
	}
	meFeedEnd struct {
		link, gen uint32
		fin       bool
		code      Code
		reason    string
	}
	meLink struct { // about a link this node feeds
		link, gen uint32
		state     string
		code      Code
		reason    string
	}
	meSum struct { // the running sum of what was stored
		blob int
		off  int64
		sum  []byte
		end  bool // off is the blob's size
	}
	meDurable   struct{ blob int }
	meReset     struct{} // actReset was done
	mePrepared  struct{ inPlace bool }
	mePublished struct{}
	meReached   struct { // the answer to actReach; code is CodeNone when it was reached
		probe  uint32
		code   Code
		reason string
	}
	meResume  struct{} // the server is back on a new control connection
	meFailure struct{ err *nodeError }
)

// What a member wants done; wire messages go to the server with actSay.
type (
	actSay       struct{ msg wire.Message }
	actAccept    struct{} // of meOpen and meFrame: yes
	actRefuse    struct{ status byte }
	actCloseFeed struct{} // whatever feeds now
	actReceive   struct{} // START came: the store may begin
	actLink      struct{ dial *wire.Dial }
	actUnlink    struct{ link uint32 }
	actReach     struct{ probe *wire.Probe } // try whether a node can be reached
	actSize      struct {                    // a stream's length became known
		blob int
		size int64
	}
	actGood struct { // bytes of blob below off may be read back from storage
		blob int
		off  int64
	}
	actSettle struct { // the blob is right: make it durable
		blob  int
		final v1.Descriptor
	}
	actReset   struct{} // end what feeds and is fed, go back to what member.positions says
	actPrepare struct{}
	actPublish struct{}
	actRelease struct{} // BYE or ABORT: the transfer is over for this node
)
