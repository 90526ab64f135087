package warmer

import (
	"context"
	"sync"

	"github.com/opencontainers/go-digest"
)

// turns lets one at a time do something with a digest. A zero one is ready for use.
type turns struct {
	mu    sync.Mutex
	taken map[digest.Digest]chan struct{} // closed when the turn is over
}

// take waits for the turn, and returns what ends it.
func (t *turns) take(ctx context.Context, d digest.Digest) (done func(), err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.taken[d] != nil {
		over := t.taken[d]
		t.mu.Unlock()
		select {
		case <-over:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		t.mu.Lock()
		if err != nil {
			return nil, err
		}
	}
	if t.taken == nil {
		t.taken = map[digest.Digest]chan struct{}{}
	}
	over := make(chan struct{})
	t.taken[d] = over
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.taken, d)
		close(over)
	}, nil
}
