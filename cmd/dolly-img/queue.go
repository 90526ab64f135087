package main

import (
	"sync"

	"github.com/dolly-img/dolly-img/ring"
)

// eventQueue keeps a slow reader from holding up the ring. The ring waits until an event is taken, and printing waits
// for a reader that may be a pager, a pipe, or a terminal that was stopped; events wait in the queue instead.
// Only the newest event of progress is kept. When too many events wait, only the newest of each node and link is, and
// it says in Shed how many are not: what nodes do must not cost the server its memory.
type eventQueue struct {
	mu      sync.Mutex
	changed sync.Cond
	waiting []ring.Event
	// most is how many may wait before some are shed.
	most   int
	closed bool
	done   chan struct{}
}

// maxWaiting is how many events wait at least before some are shed: a few for each of a thousand nodes and links.
const maxWaiting = 4096

// newEventQueue starts a goroutine that calls each with every event, in order.
func newEventQueue(each func(ring.Event)) *eventQueue {
	q := &eventQueue{most: maxWaiting, done: make(chan struct{})}
	q.changed.L = &q.mu
	go q.run(each)
	return q
}

func (q *eventQueue) put(e ring.Event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if n := len(q.waiting); n > 0 && e.Kind == ring.EventProgress && q.waiting[n-1].Kind == ring.EventProgress {
		q.waiting[n-1] = e
		return
	}
	if len(q.waiting) >= q.most {
		q.waiting = newest(q.waiting)
		q.most = max(maxWaiting, 2*len(q.waiting)) // so that this is not done for each event
	}
	q.waiting = append(q.waiting, e)
	q.changed.Signal()
}

// newest is the last event of each node and link, in order.
func newest(events []ring.Event) (kept []ring.Event) {
	type about struct {
		kind       ring.Kind
		node, link string
	}
	last, shed := map[about]int{}, map[about]int{}
	for i, e := range events {
		last[about{e.Kind, e.Node, e.Link}] = i
	}
	for i, e := range events {
		of := about{e.Kind, e.Node, e.Link}
		switch {
		case last[of] != i:
			shed[of] += 1 + e.Shed
		case e.Kind == ring.EventProgress:
			kept = append(kept, e)
		default:
			e.Shed += shed[of]
			kept = append(kept, e)
		}
	}
	return kept
}

func (q *eventQueue) run(each func(ring.Event)) {
	defer close(q.done)
	for {
		q.mu.Lock()
		for len(q.waiting) == 0 && !q.closed {
			q.changed.Wait()
		}
		batch := q.waiting
		q.waiting = nil
		q.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		for _, e := range batch {
			each(e)
		}
	}
}

// close waits until each was called with all events.
func (q *eventQueue) close() {
	q.mu.Lock()
	q.closed = true
	q.changed.Signal()
	q.mu.Unlock()
	<-q.done
}
