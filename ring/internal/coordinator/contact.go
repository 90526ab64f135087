package coordinator

import (
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// contact is how a node can be talked to.
//
// alive and resuming are never both true. Once met is true, instance is the process that the server talks to,
// or talked to last.
type contact struct {
	// alive says that its control connection is open.
	alive bool
	// resuming says that its control connection broke and is being dialled again.
	resuming bool
	// met says that the node has answered once.
	met bool
	// busy says that it was sent an OFFER and waits for another transfer to end.
	busy bool
	// instance tells the processes of one machine apart.
	instance wire.ID
	// addr is where it answered last.
	addr string
	// version is the protocol that it speaks with the server.
	version int
	// asked is when the OFFER was sent.
	asked time.Duration
	// returns counts how often it was lost and came back.
	returns int
}

// greeted notes who answered, and how.
func (c *contact) greeted(addr string, version int) { c.addr, c.version = addr, version }

// offer notes which process is sent an OFFER.
func (c *contact) offer(instance wire.ID, now time.Duration) {
	c.open()
	c.instance, c.met, c.asked, c.busy = instance, true, now, false
}

// open notes that the control connection is in use from now on.
func (c *contact) open() { c.alive, c.resuming = true, false }

// resume notes that the control connection broke, and is dialled again.
func (c *contact) resume() { c.alive, c.resuming = false, true }

// close notes that the control connection is gone, and that nobody waits for another one.
func (c *contact) close() { c.alive, c.resuming = false, false }

// waits notes that the node waits for another transfer to end; it is true the first time.
func (c *contact) waits() bool {
	first := !c.busy
	c.busy = true
	return first
}

func (c *contact) cameBack() { c.returns++ }
