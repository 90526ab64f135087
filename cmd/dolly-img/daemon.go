package main

import (
	"context"
	"fmt"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"github.com/dolly-img/dolly-img/ring"
)

func newDaemon() *cobra.Command {
	var flags nodeFlags
	var grace time.Duration
	cmd := &cobra.Command{
		Use:   "daemon",
		Short: "Receive transfers on a node, until told to stop",
		Long: `Daemon runs on a node, in the foreground, and serves transfers as they come. What a
transfer may write is said in policy.toml beside the keys; without that file only
the cache. Policy and keys are read at the start: restart it after a change. On SIGTERM or SIGINT it takes no new transfer and gives running ones the
grace time; a second signal ends it at once.

It tells systemd when it is ready and takes the socket of a socket unit, if there
is one. A unit file is in cmd/dolly-img/packaging of the source.`,
		Example: `  dolly-img daemon --keys /etc/dolly-img/keys`,
		Args:    exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if grace < 0 {
				return usagef("--grace %v: negative", grace)
			}
			s, err := flags.setup(cmd.ErrOrStderr(), nil)
			if err != nil {
				return err
			}
			return runDaemon(cmd.Context(), s, grace)
		},
	}
	flags.add(cmd)
	cmd.Flags().DurationVar(&grace, "grace", 30*time.Second, "`TIME` that running transfers may take once it is told to stop")
	return cmd
}

func runDaemon(ctx context.Context, s *nodeSetup, grace time.Duration) error {
	node, err := ring.NewNode(s.cfg)
	if err != nil {
		return err
	}
	ended := s.serve(node)
	s.announce()
	notify(daemon.SdNotifyReady)
	var broken error
	select {
	case <-ctx.Done():
		s.log.Info("stopping", "grace", grace)
	case broken = <-ended:
	}
	notify(daemon.SdNotifyStopping)
	// The parent has ended: that is why we stop.
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	if err := node.Shutdown(stop); err != nil {
		s.log.Warn("transfers aborted", "error", err)
	}
	if broken != nil {
		return fmt.Errorf("daemon: listener failed: %w", broken)
	}
	return nil
}

// notify tells systemd; where nobody listens that is no failure.
func notify(state string) { _, _ = daemon.SdNotify(false, state) }
