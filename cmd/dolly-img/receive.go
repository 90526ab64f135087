package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/node"
	"github.com/dolly-img/dolly-img/ring"
)

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
			n, err := flags.setup(cmd.ErrOrStderr(), cmd.OutOrStdout())
			if err != nil {
				return err
			}
			err = n.Receive(cmd.Context())
			if errors.Is(err, node.ErrInterrupted) {
				return &statusError{ring.ExitInterrupted, err}
			}
			return err
		},
	}
	flags.add(cmd, verboseLinks)
	return cmd
}
