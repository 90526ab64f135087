package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/dolly-img/dolly-img/ring"
)

// farewell is how long Receive waits at its end, so that the sender hears of the outcome.
const farewell = 5 * time.Second

// ErrInterrupted says that the context ended before a transfer did.
var ErrInterrupted = errors.New("receive: interrupted")

// Receive takes part in one transfer. It returns an error if the transfer failed here, or if none came.
func (s *Node) Receive(ctx context.Context) error {
	outcome := make(chan ring.Outcome, 1)
	// The ring takes one transfer at a time. Accept below sees to it that no second one follows the first.
	var mu sync.Mutex
	begun := "" // the transfer that was taken
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
		if s.began != nil {
			s.began(r)
		}
	}
	if s.progress != nil {
		s.cfg.Progress = func(_ ring.Request, p ring.NodeProgress) { s.progress(p) }
	}
	s.cfg.Finished = func(r ring.Request, o ring.Outcome) {
		finished(r, o)
		mu.Lock()
		defer mu.Unlock()
		switch {
		case r.Transfer != begun: // another one was refused
		case o.Asked:
			begun = ""
		default:
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
		if s.ended != nil {
			s.ended(o)
		}
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
	_ = node.Shutdown(stop) // the outcome of the transfer is known already
	return result
}
