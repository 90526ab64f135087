package main

import (
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// What -v adds to the log.
const (
	verboseLinks  = "each link that comes in"
	verboseDaemon = verboseLinks + ", and each request to the mirror"
)

func newDaemon() *cobra.Command {
	var flags nodeFlags
	var grace time.Duration
	var at, metricsAt, print string
	var names []string
	var check bool
	cmd := &cobra.Command{
		Use:   "daemon",
		Short: "Receive transfers on a node, until told to stop",
		Long: `Daemon runs on a node, in the foreground, and takes transfers as they come. The file
policy.toml beside the keys says what a transfer may write; without that file it may write to
the cache only. On SIGHUP, which systemctl reload sends, the daemon reads the policy, the keys and
the list of revoked certificates again. Transfers that begin from then on follow them, and running
transfers go on as they began. If anything is wrong with them, the log says so, and everything
stays as it was. --check-config tries them without a daemon. On SIGTERM or SIGINT the daemon takes no
new transfer, and gives running ones the grace time. A second signal ends it at once.

The log has a line for each transfer, each refusal, and each image that is evicted. At the start it
lists the configuration, and every day the certificates that end within 30 days. -v adds each
link that comes in, and each request to the mirror.

With --mirror ADDR the daemon also serves its cache to the container runtimes of this node. The
mirror is a read-only registry without TLS, so ADDR has to be an address that only this node
reaches. If an image is not in the cache, the mirror does not find it, and the runtime asks the
registry itself. --print-config prints what containerd, podman or apptainer need to use the mirror.
For podman it names docker.io, quay.io and the registries of the images in the cache, so run it
again after the first push from another registry.

With --metrics ADDR Prometheus can read at http://ADDR/metrics what the daemon counts: transfers, their
bytes, links that broke, the size of the cache, requests to the mirror, and when the certificate ends. The README has all of it.

The daemon tells systemd when it is ready, and takes the socket of a socket unit if there is
one. A unit file is in cmd/dolly-img/packaging of the source.`,
		Example: `  dolly-img daemon --keys /etc/dolly-img/keys`,
		Args:    exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if grace < 0 {
				return usagef("--grace %v: negative", grace)
			}
			metricsAt, err := metricsAddress(metricsAt)
			if err != nil {
				return err
			}
			if print != "" {
				return printConfig(cmd, print, at, flags.cache)
			}
			if check {
				return flags.check(cmd, at, metricsAt)
			}
			n, err := flags.setup(cmd.ErrOrStderr(), nil)
			if err != nil {
				return err
			}
			stop, err := n.ServeMirror(at, names...)
			if err != nil {
				return err
			}
			defer stop()
			unscrape, err := n.ServeMetrics(metricsAt, metricsBuild())
			if err != nil {
				return err
			}
			defer unscrape()
			// For all other commands SIGHUP says that the terminal is gone, and main ends them. Here it means to reload.
			signal.Ignore(syscall.SIGHUP)
			hangup := make(chan os.Signal, 1)
			signal.Notify(hangup, syscall.SIGHUP)
			return n.Serve(cmd.Context(), hangup, grace)
		},
	}
	flags.add(cmd, verboseDaemon)
	cmd.Flags().StringVar(&at, "mirror", "", "also serve the cache to this node's runtimes at `ADDRESS`, such as 127.0.0.1:5050 or unix:/run/dolly-img/mirror.sock")
	cmd.Flags().StringSliceVar(&names, "mirror-name", nil, "let clients call the mirror by `NAME`, too, besides its addresses, localhost and the name of this machine; can be given more than once")
	addMetricsFlag(cmd, &metricsAt)
	cmd.Flags().StringVar(&print, "print-config", "", "print what `RUNTIME` (containerd, podman or apptainer) needs to use the mirror, and exit")
	cmd.Flags().BoolVar(&check, "check-config", false, "read the keys, the policy and the rest of the configuration, print what a daemon would use, and exit; the exit status is 1 if a daemon would not start")
	timeVar(cmd.Flags(), &grace, "grace", 30*time.Second, "`TIME` that running transfers may take once the daemon is told to stop")
	return cmd
}
