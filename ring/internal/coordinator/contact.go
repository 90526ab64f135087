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
	// resumed counts how often its connection broke and was resumed since the node had got as far as had.
	resumed int
	had     int64
}

// maxResumes is how often a connection may be resumed without progress in between. A node that closes each must not
// hold the others up for ever.
const maxResumes = 5

// greeted notes who answered, and how.
func (c *contact) greeted(addr string, version int) { c.addr, c.version = addr, version }

// offer notes which process is sent an OFFER.
func (c *contact) offer(instance wire.ID, now time.Duration) {
	c.open()
	c.instance, c.met, c.asked, c.busy = instance, true, now, false
	c.resumed, c.had = 0, 0
}

// open notes that the control connection is in use from now on.
func (c *contact) open() { c.alive, c.resuming = true, false }

// resume notes that the control connection broke, and is dialled again.
func (c *contact) resume() { c.alive, c.resuming = false, true }

// resumes counts a connection that is resumed, of a node that is so far, and returns how many were in a row in which it
// did not get on by leastStep.
func (c *contact) resumes(has int64) (inRow int) {
	if has >= c.had+leastStep {
		c.had, c.resumed = has, 0
	}
	c.resumed++
	return c.resumed
}

// close notes that the control connection is gone, and that nobody waits for another one.
func (c *contact) close() { c.alive, c.resuming = false, false }

// waits notes that the node waits for another transfer to end; it is true the first time.
func (c *contact) waits() bool {
	first := !c.busy
	c.busy = true
	return first
}

func (c *contact) cameBack() { c.returns++ }
