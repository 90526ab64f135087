package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/ring"
)

func newDaemon() *cobra.Command {
	var flags nodeFlags
	var grace time.Duration
	var at, print string
	cmd := &cobra.Command{
		Use:   "daemon",
		Short: "Receive transfers on a node, until told to stop",
		Long: `Daemon runs on a node, in the foreground, and serves transfers as they come. What a
transfer may write is said in policy.toml beside the keys; without that file only
the cache. Policy and keys are read at the start: restart it after a change. On SIGTERM,
SIGINT or SIGHUP it takes no new transfer and gives running ones the grace time; a second
signal ends it at once.

With --mirror ADDR it also serves its cache to the container runtimes of this node, as a
read-only registry without TLS: name an address that only this node reaches. What
is not in the cache is not found there, and the runtime asks the registry itself.
--print-config prints what containerd, podman or apptainer need to use it; for podman it names the
registries of the images in the cache, so run it after the first push.

It tells systemd when it is ready and takes the socket of a socket unit, if there
is one. A unit file is in cmd/dolly-img/packaging of the source.`,
		Example: `  dolly-img daemon --keys /etc/dolly-img/keys`,
		Args:    exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if grace < 0 {
				return usagef("--grace %v: negative", grace)
			}
			if print != "" {
				return printConfig(cmd, print, at, flags.cache)
			}
			s, err := flags.setup(cmd.ErrOrStderr(), nil)
			if err != nil {
				return err
			}
			stop, err := s.serveMirror(at)
			if err != nil {
				return err
			}
			defer stop()
			return runDaemon(cmd.Context(), s, grace)
		},
	}
	flags.add(cmd)
	cmd.Flags().StringVar(&at, "mirror", "", "also serve the cache to this node's runtimes at `ADDRESS`, as in 127.0.0.1:5050 or unix:/run/dolly-img/mirror.sock")
	cmd.Flags().StringVar(&print, "print-config", "", "print what `RUNTIME` (containerd, podman or apptainer) needs to use the mirror, and end")
	cmd.Flags().DurationVar(&grace, "grace", 30*time.Second, "`TIME` that running transfers may take once it is told to stop")
	return cmd
}

func runDaemon(ctx context.Context, s *nodeSetup, grace time.Duration) error {
	node, err := ring.NewNode(s.cfg)
	if err != nil {
		return err
	}
	ended := s.serve(node)
	go tend(ctx, s.acceptor.cache, s.log)
	if err := s.acceptor.cache.ServeUses(ctx); err != nil {
		s.log.Warn("uses of images by other users are not noted", "error", err)
	}
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

// tendEvery is how often the daemon looks after its cache. Transfers do it, too; but others fill
// the file system as well.
const tendEvery = 10 * time.Minute

func tend(ctx context.Context, store *cache.Cache, log *slog.Logger) {
	for tick := time.NewTicker(tendEvery); ; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case <-tick.C:
		}
		if err := store.Tend(ctx); err != nil && ctx.Err() == nil {
			log.Warn("the cache could not be looked after", "error", err)
		}
	}
}

// notify tells systemd; where nobody listens that is no failure.
func notify(state string) { _, _ = daemon.SdNotify(false, state) }
