package coordinator

import (
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// contact is how a node can be talked to.
//
// A node is never alive and resuming at once. The process that is talked to is instance, which means
// something once met is true.
type contact struct {
	alive    bool // its control connection is open
	resuming bool // its control connection broke and is being dialled again
	met      bool // it has answered once
	busy     bool // it was asked, and waits for another transfer to end
	instance wire.ID
	addr     string        // where it answered at last
	version  int           // of the protocol that it speaks with the server
	asked    time.Duration // when OFFER was sent
	returns  int           // how often it came back
}
