package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/dolly-img/dolly-img/ring"
)

// stalled says that nothing moved for so many seconds.
type stalled struct{ seconds int }

func (e *stalled) Error() string {
	return fmt.Sprintf("Timeout reached (was set to %d seconds).", e.seconds)
}

// toldEvery is how often a server and a node tell of progress: what they do not tell may have moved for so long.
const toldEvery = time.Second

// stallWatch puts off a timer while something moves. One that is nil watches nothing.
type stallWatch struct {
	limit time.Duration
	timer *time.Timer

	mu    sync.Mutex
	bytes int64
	done  int
}

// watchStall returns a context that ends when nothing moves for so long, what has to be told of all that moves, and a function that ends
// the watching. With 0 the context is ctx.
func watchStall(ctx context.Context, limit time.Duration) (context.Context, *stallWatch, func()) {
	if limit <= 0 {
		return ctx, nil, func() {}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	w := &stallWatch{limit: limit}
	w.timer = time.AfterFunc(limit, func() { cancel(&stalled{int(limit / time.Second)}) })
	return ctx, w, func() {
		w.timer.Stop()
		cancel(nil)
	}
}

// alive says that something has moved.
func (w *stallWatch) alive() {
	if w != nil {
		w.timer.Reset(w.limit + toldEvery)
	}
}

// event takes an event of a server, which puts the timer off unless it says no more than the last one.
func (w *stallWatch) event(e ring.Event) {
	if w != nil && (e.Kind != ring.EventProgress || w.moved(e.Bytes, e.Done)) {
		w.alive()
	}
}

// node takes the progress of a node. One that waits for the server does not know whether others get on. The server does, and is missed
// soon if it is gone.
func (w *stallWatch) node(p ring.NodeProgress) {
	switch {
	case w == nil:
	case p.Waits:
		w.moved(-1, 0) // what comes next is another figure
		w.timer.Stop()
	case w.moved(p.Moved, 0):
		w.alive()
	}
}

// moved notes how far somebody is, and reports whether that is not as far as before.
func (w *stallWatch) moved(bytes int64, done int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	more := bytes != w.bytes || done != w.done
	w.bytes, w.done = bytes, done
	return more
}
