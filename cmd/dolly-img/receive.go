package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/dolly-img/dolly-img/ring"
)

// farewell is how long a receive stays for the sender to hear of its outcome.
const farewell = 5 * time.Second

func newReceive() *cobra.Command {
	var flags nodeFlags
	cmd := &cobra.Command{
		Use:   "receive",
		Short: "Receive one transfer on a node, and end with its status",
		Long: `Receive waits for one transfer, takes part in it, and exits: 0 when this node
confirmed the right digest, 1 when the transfer failed here, 6 when it was
interrupted before one came. A transfer that the policy refuses is not the one.

What a sender sends to the output - is written to standard output. It comes before
it is verified to the end: look at the exit status.`,
		Example: `  dolly-img receive --keys ./keys > image.tar`,
		Args:    exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := flags.setup(cmd.ErrOrStderr(), cmd.OutOrStdout())
			if err != nil {
				return err
			}
			return runReceive(cmd.Context(), s)
		},
	}
	flags.add(cmd, verboseLinks)
	return cmd
}

func runReceive(ctx context.Context, s *nodeSetup) error {
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
	s.introduce()
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
		result = &statusError{ring.ExitInterrupted, errors.New("receive: interrupted")}
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
	defer cancel()
	if ctx.Err() != nil {
		cancel()
	}
	_ = node.Shutdown(stop) // how the one transfer ended is known
	return result
}
