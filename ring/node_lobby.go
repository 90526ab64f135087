package ring

import (
	"cmp"
	"maps"
	"net"
	"slices"
	"sync"
	"time"
)

// What control connections without a transfer may have together (PROTOCOL.md section 3).
const (
	maxLobby = 64 // connections
	maxLong  = 4  // of them that read a message of more than 64 KiB

	asksAtOnce = maxLobby               // questions of a key that are answered as soon as it is their turn
	askTime    = 100 * time.Millisecond // in which a key may ask one more
)

// lobby bounds the control connections that are authenticated and have no transfer. If there are too many, the oldest one
// of the key that has most of them is closed, so that nobody who has one key keeps out another key.
type lobby struct {
	mu      sync.Mutex
	changed sync.Cond
	guests  []*control // oldest first
	long    []*control // those that read a long message, or wait for the answer to one, in the order in which they began
	asking  []*control // those whose question waits for its turn, in the order in which they came
	turn    bool       // a question is being answered
	served  []owner    // whose questions were answered, who had the last one at the end
	// paid has, by key, until when its questions of late have used up what it may ask.
	paid map[owner]time.Time
}

func newLobby() *lobby {
	l := &lobby{paid: map[owner]time.Time{}}
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

// pause returns how long a connection has to wait before its next question gets in line, because its key has asked much. It counts
// the question.
func (l *lobby) pause(c *control) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if len(l.paid) > maxLobby {
		maps.DeleteFunc(l.paid, func(_ owner, until time.Time) bool { return !until.After(now) })
	}
	until := l.paid[c.owner]
	if until.Before(now) {
		until = now
	}
	// No more than the questions of maxLobby connections can wait, and what others have given up is not waited for.
	if most := now.Add((asksAtOnce + maxLobby) * askTime); until.Add(askTime).After(most) {
		until = most
	} else {
		until = until.Add(askTime)
	}
	l.paid[c.owner] = until
	return until.Sub(now) - asksAtOnce*askTime
}

// await waits for the turn of a connection to have its question answered. One is at a time, and the next is the first of
// the key that has waited longest since its last one, so that who asks much keeps others waiting for one question at most. It fails
// if the connection is closed meanwhile.
func (l *lobby) await(c *control) error {
	if !c.rest(l.pause(c)) {
		return net.ErrClosed
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asking = append(l.asking, c)
	for slices.Contains(l.guests, c) {
		if !l.turn && l.next() == c {
			is := func(o *control) bool { return o == c }
			l.turn, l.asking = true, slices.DeleteFunc(l.asking, is)
			l.served = append(slices.DeleteFunc(l.served, func(o owner) bool { return o == c.owner }), c.owner)
			l.served = l.served[max(0, len(l.served)-maxLobby):]
			return nil
		}
		l.changed.Wait()
	}
	return net.ErrClosed
}

// next returns whose turn it is. Somebody waits.
func (l *lobby) next() *control {
	return slices.MinFunc(l.asking, func(a, b *control) int {
		return cmp.Compare(slices.Index(l.served, a.owner), slices.Index(l.served, b.owner))
	})
}

// answered ends the turn of a connection. If its question was long, another one may be read now.
func (l *lobby) answered(c *control) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.turn = false
	l.shorten(c)
}

// took says that a connection goes on without its long message, so that another one may be read now.
func (l *lobby) took(c *control) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shorten(c)
}

func (l *lobby) shorten(c *control) {
	l.long = slices.DeleteFunc(l.long, func(o *control) bool { return o == c })
	l.changed.Broadcast()
}

func (l *lobby) evict(c *control) {
	c.hangUp()
	l.remove(c)
}

func (l *lobby) remove(c *control) {
	is := func(o *control) bool { return o == c }
	l.guests, l.long, l.asking = slices.DeleteFunc(l.guests, is), slices.DeleteFunc(l.long, is), slices.DeleteFunc(l.asking, is)
	l.changed.Broadcast()
}
