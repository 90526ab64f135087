package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/dolly-img/dolly-img/ring"
)

// farewell is how long a receive stays for the sender to hear of its outcome.
const farewell = 5 * time.Second

// ErrInterrupted says that the context ended before a transfer did.
var ErrInterrupted = errors.New("receive: interrupted")

// Receive takes part in one transfer. Its error says that the transfer failed here, or that none came.
func (s *Node) Receive(ctx context.Context) error {
	outcome := make(chan ring.Outcome, 1)
	// One transfer at a time is the ring's business; that no second one follows
	// the first is ours.
	var mu sync.Mutex
	begun := "" // the transfer that it is
	accept, finished := s.cfg.Accept, s.cfg.Finished
	s.cfg.Transfers = 1
	s.cfg.Accept = func(ctx context.Context, r ring.Request) (ring.Sink, error) {
		mu.Lock()
		defer mu.Unlock()
		if begun != "" {
			return nil, errors.New("this node receives one transfer only, and has it")
		}
		return accept(ctx, r)
	}
	s.cfg.Began = func(r ring.Request) {
		mu.Lock()
		defer mu.Unlock()
		begun = r.Transfer
	}
	s.cfg.Finished = func(r ring.Request, o ring.Outcome) {
		finished(r, o)
		mu.Lock()
		defer mu.Unlock()
		if r.Transfer == begun { // not one whose offer was refused
			outcome <- o
		}
	}
	node, err := ring.NewNode(s.cfg)
	if err != nil {
		return err
	}
	ended := s.serve(node)
	s.describe()
	s.announce()
	var result error
	select {
	case o := <-outcome:
		if !o.State.Good() {
			result = fmt.Errorf("receive: transfer failed: %w", o.Err)
		}
	case err := <-ended:
		result = fmt.Errorf("receive: listener failed: %w", err)
	case <-ctx.Done():
		result = ErrInterrupted
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
	defer cancel()
	if ctx.Err() != nil {
		cancel()
	}
	_ = node.Shutdown(stop) // how the one transfer ended is known
	return result
}
