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
		Short: "Receive one transfer on a node, and exit with its status",
		Long: `Receive waits for one transfer, takes part in it, and exits. The exit status is 0 if this
node confirmed the right digest, 1 if the transfer failed here, and 6 if receive was
interrupted before a transfer came. If the policy refuses a transfer, or a sender only asks
(--check), receive waits for the next one.

If the sender names - as the output, receive writes to its standard output. It writes bytes
before all of them are verified, so look at the exit status.`,
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
