package ring

import (
	"net"
	"slices"
	"sync"
)

// What control connections without a transfer may have together (PROTOCOL.md section 3).
const (
	maxLobby = 64 // connections
	maxLong  = 4  // of them that read a message of more than 64 KiB
)

// lobby bounds the control connections that are authenticated and have no transfer. If there are too many, the oldest one
// of the key that has most of them is closed, so that nobody who has one key keeps out another key.
type lobby struct {
	mu      sync.Mutex
	changed sync.Cond
	guests  []*control // oldest first
	long    []*control // those that read a long message, in the order in which they began
}

func newLobby() *lobby {
	l := &lobby{}
	l.changed.L = &l.mu
	return l
}

// enter lets a connection in.
func (l *lobby) enter(c *control) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.guests) >= maxLobby {
		l.evict(crowder(l.guests, c.owner, 1))
	}
	l.guests = append(l.guests, c)
	c.lobby = l
}

// leave lets a connection out, if it is there.
func (l *lobby) leave(c *control) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.remove(c)
	c.lobby = nil
}

// begin waits until a connection may read a long message. It fails if the connection is closed meanwhile.
func (l *lobby) begin(c *control) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for slices.Contains(l.guests, c) {
		if len(l.long) < maxLong {
			l.long = append(l.long, c)
			l.changed.Broadcast() // its key may have most of the places now
			return nil
		}
		if old := crowder(l.long, c.owner, 2); old != nil {
			l.evict(old)
			continue
		}
		l.changed.Wait()
	}
	return net.ErrClosed
}

// crowder returns the oldest connection of the key that has most of them, where who comes counts for its own. Keys that have
// fewer than least are left alone.
func crowder(among []*control, comes owner, least int) (old *control) {
	have := map[owner]int{}
	for _, c := range among {
		have[c.owner]++
	}
	most := 0
	for _, c := range among {
		n := have[c.owner]
		if n < least {
			continue
		}
		if c.owner == comes {
			n++
		}
		if n > most {
			most, old = n, c
		}
	}
	return old
}

func (l *lobby) evict(c *control) {
	c.hangUp()
	l.remove(c)
}

func (l *lobby) remove(c *control) {
	is := func(o *control) bool { return o == c }
	l.guests, l.long = slices.DeleteFunc(l.guests, is), slices.DeleteFunc(l.long, is)
	l.changed.Broadcast()
}
