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

// greeted notes who answered, and how.
func (c *contact) greeted(addr string, version int) { c.addr, c.version = addr, version }

// offer is for a process that is sent an OFFER.
func (c *contact) offer(instance wire.ID, now time.Duration) {
	c.open()
	c.instance, c.met, c.asked, c.busy = instance, true, now, false
}

// open is for a control connection that is in use from now on.
func (c *contact) open() { c.alive, c.resuming = true, false }

// resume is for a control connection that broke, and is dialled again.
func (c *contact) resume() { c.alive, c.resuming = false, true }

// close is for a control connection that is gone, and that nobody waits for.
func (c *contact) close() { c.alive, c.resuming = false, false }

// waits notes that the node waits for another transfer to end; it is true the first time.
func (c *contact) waits() bool {
	first := !c.busy
	c.busy = true
	return first
}

func (c *contact) cameBack() { c.returns++ }
