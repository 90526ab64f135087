package main

import (
	"sync"

	"github.com/dolly-img/dolly-img/ring"
)

// eventQueue keeps a slow reader from holding up the ring. The ring waits until an event is taken, and printing waits
// for a reader that may be a pager, a pipe, or a terminal that was stopped; events wait in the queue instead.
// Only the newest event of progress is kept, and the others are a few for each node.
type eventQueue struct {
	mu      sync.Mutex
	changed sync.Cond
	waiting []ring.Event
	closed  bool
	done    chan struct{}
}

// newEventQueue starts a goroutine that calls each with every event, in order.
func newEventQueue(each func(ring.Event)) *eventQueue {
	q := &eventQueue{done: make(chan struct{})}
	q.changed.L = &q.mu
	go q.run(each)
	return q
}

func (q *eventQueue) put(e ring.Event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if n := len(q.waiting); n > 0 && e.Kind == ring.EventProgress && q.waiting[n-1].Kind == ring.EventProgress {
		q.waiting[n-1] = e
	} else {
		q.waiting = append(q.waiting, e)
	}
	q.changed.Signal()
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
