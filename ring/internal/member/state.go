package member

import (
	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/dolly-img/dolly-img/ring/leaf"
)

// This file has what a driver may ask a Machine.

// Phase is how far a node is in a transfer.
type Phase int

// These are the phases in their order. Failed may follow any of them but Committed.
const (
	// Offered means that the node has answered the offer, and START has not come.
	Offered Phase = iota
	// Started means that bytes may come.
	Started
	// Complete means that every blob is held or durable, and ActPrepare was returned.
	Complete
	// Verified means that the node has said VERIFIED.
	Verified
	// Publishing means that COMMIT came, and ActPublish was returned.
	Publishing
	// Committed means that the node has said COMMITTED.
	Committed
	// Failed means that the node has said FAIL, or that the server ended the transfer.
	Failed
)

// Phase returns how far the node is.
func (m *Machine) Phase() Phase { return m.phase }

// Position is where a node stands in one blob.
type Position struct {
	// Size is the blob's length in bytes, or -1 while it is not known.
	Size int64
	// Held says that the node vouched for the blob in its ANSWER.
	Held bool
	// Judged says that the blob's digest was compared and is right.
	Judged bool
	// Accepted is the end of what the node has: what it claimed, and the frames that it accepted behind that. Leaves of Set
	// are left out.
	Accepted int64
	// Set has the leaves that were there before. It is nil where there are none, and never changes.
	Set *leaf.Set
	// Good is how many leading bytes are below the last mark that was equal to the node's own sum.
	Good int64
}

// Position returns where the node stands in blob i.
func (m *Machine) Position(i int) Position {
	b := &m.blobs[i]
	return Position{Size: b.size, Held: b.held, Judged: b.judged, Accepted: b.accepted, Set: b.set, Good: b.good}
}

// AcceptedAll reports whether no feed has anything more to bring.
func (m *Machine) AcceptedAll() bool {
	for i := range m.blobs {
		if m.blobs[i].lacks() {
			return false
		}
	}
	return true
}

// Unjudged returns how many sums, of all blobs, wait for marks, if marks of blob i will come. Behind the final mark none does: what
// was left out before is judged by that one.
func (m *Machine) Unjudged(i uint32) int {
	if int64(i) >= int64(len(m.blobs)) || m.blobs[i].final != "" {
		return 0
	}
	return m.sums
}

// Generation returns the newest generation that FEED named.
func (m *Machine) Generation() uint32 { return m.feedGen }

// Resetting reports whether the node is falling back: ActReset was returned, and EvReset has not come.
func (m *Machine) Resetting() bool { return m.resetting }

// Received returns the payload in bytes that was accepted, including what was dropped later.
func (m *Machine) Received() int64 { return m.received }

// Moved returns a number that changes whenever the node gets on: bytes come, are good, are durable, or are compared before the start.
func (m *Machine) Moved() int64 {
	moved := m.received + m.marked + m.durable
	for i := range m.blobs {
		moved += m.blobs[i].compared.judged + int64(len(m.blobs[i].compared.own))
	}
	return moved
}

// Waits reports whether the node has done what it was told to do by now, and waits for the server.
func (m *Machine) Waits() bool {
	return m.phase > Started && m.phase < Failed || m.phase == Offered && m.comparison.said
}

// InPlace reports whether there is nothing to switch.
func (m *Machine) InPlace() bool { return m.inPlace }

// Keeps reports whether good parts of what was not published are worth keeping for another transfer.
func (m *Machine) Keeps() bool { return m.keep }

// Failure returns why the node failed, or nil if it did not.
func (m *Machine) Failure() *wire.Error { return m.failed }
