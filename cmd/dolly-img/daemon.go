package main

import (
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// What the log has more of with -v.
const (
	verboseLinks  = "each link that comes in"
	verboseDaemon = verboseLinks + ", and each request to the mirror"
)

func newDaemon() *cobra.Command {
	var flags nodeFlags
	var grace time.Duration
	var at, print string
	var check bool
	cmd := &cobra.Command{
		Use:   "daemon",
		Short: "Receive transfers on a node, until told to stop",
		Long: `Daemon runs on a node, in the foreground, and serves transfers as they come. What a
transfer may write is said in policy.toml beside the keys; without that file only
the cache. On SIGHUP, which systemctl reload sends, it reads policy, keys and the list of
revoked certificates again: what begins from then on follows them, running transfers keep
what they began with. When anything is wrong with them, the log says so, and all of the old
stays in force. --check-config tries them without a daemon. On SIGTERM or SIGINT it takes no
new transfer and gives running ones the grace time; a second signal ends it at once.

The log has a line for each transfer, each refusal, and each image that is evicted; at the start what
is in force, and every day the certificates that end within 30 days. With -v it has also each
link that comes in, and each request to the mirror.

With --mirror ADDR it also serves its cache to the container runtimes of this node, as a
read-only registry without TLS: name an address that only this node reaches. What
is not in the cache is not found there, and the runtime asks the registry itself.
--print-config prints what containerd, podman or apptainer need to use it; for podman it names
docker.io, quay.io and the registries of the images in the cache, so run it after the first push
from another one.

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
			if check {
				return flags.check(cmd, at)
			}
			n, err := flags.setup(cmd.ErrOrStderr(), nil)
			if err != nil {
				return err
			}
			stop, err := n.ServeMirror(at)
			if err != nil {
				return err
			}
			defer stop()
			// For the other commands SIGHUP is a terminal that is gone, and main ends them by it.
			signal.Ignore(syscall.SIGHUP)
			hangup := make(chan os.Signal, 1)
			signal.Notify(hangup, syscall.SIGHUP)
			return n.Serve(cmd.Context(), hangup, grace)
		},
	}
	flags.add(cmd, verboseDaemon)
	cmd.Flags().StringVar(&at, "mirror", "", "also serve the cache to this node's runtimes at `ADDRESS`, as in 127.0.0.1:5050 or unix:/run/dolly-img/mirror.sock")
	cmd.Flags().StringVar(&print, "print-config", "", "print what `RUNTIME` (containerd, podman or apptainer) needs to use the mirror, and end")
	cmd.Flags().BoolVar(&check, "check-config", false, "read keys, policy and the rest of the configuration, print what would be in force, and end; exit 1 when a daemon would not start")
	cmd.Flags().DurationVar(&grace, "grace", 30*time.Second, "`TIME` that running transfers may take once it is told to stop")
	return cmd
}
