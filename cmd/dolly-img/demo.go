package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/demo"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/push"
	"github.com/dolly-img/dolly-img/ring"
)

const maxDemoNodes = 64

func newDemo() *cobra.Command {
	var d demo.Demo
	var report string
	cmd := &cobra.Command{
		Use:   "demo [IMAGE]",
		Short: "Watch a ring of nodes on this machine",
		Long: `Demo starts nodes as processes of their own on the loopback interface, pushes IMAGE (or
a SIF of 256 MiB that it makes) to all of them through the ring, and reads every copy
again to compare it. It needs neither root nor anything installed; keys, caches and
copies are in a temporary directory (in $TMPDIR) that is removed at the end. With --keep
the image that it makes stays, and can be pushed to real nodes.

With --kill it kills nodes in the middle of the transfer: the others go on without
them. With --slow nodes take a tenth of what the others do, with --freeze they stand
still until they are missed and then go on, with --corrupt a byte is changed on the way
to them. The exit status is 0 when the copies of all that were left alive are right.`,
		Example: `  dolly-img demo
  dolly-img demo --nodes 8 --kill 2 --slow 1
  dolly-img demo --freeze 1 --corrupt 1`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return exactly(1, "")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if d.Nodes < 1 || d.Nodes > maxDemoNodes {
				return usagef("--nodes %d: want 1 to %d", d.Nodes, maxDemoNodes)
			}
			if err := checkFaults(d.Faults, d.Nodes); err != nil {
				return err
			}
			if len(args) > 0 && d.Keep != "" {
				return usagef("--keep is for the image that the demo makes, and %s is there already", args[0])
			}
			if len(args) > 0 {
				d.Image = args[0]
			}
			screen := newScreen(cmd.ErrOrStderr())
			d.Out, d.Say, d.Software = cmd.OutOrStdout(), screen.printf, software()
			d.Show = func(ctx context.Context, p *push.Push, watch func(ring.Event)) error {
				j := &job{Push: p, cmd: cmd, screen: screen, flags: &sendFlags{report: report}, watch: watch}
				return j.run(ctx)
			}
			err := d.Run(cmd.Context())
			if wrong := new(demo.WrongError); errors.As(err, &wrong) {
				return &statusError{ring.ExitPartial, err}
			}
			return err
		},
	}
	cmd.Flags().IntVar(&d.Nodes, "nodes", 4, "start `N` nodes")
	cmd.Flags().IntVar(&d.Faults.Kill, "kill", 0, "kill `N` of them on the way")
	cmd.Flags().IntVar(&d.Faults.Slow, "slow", 0, "have `N` of them take a tenth of what the others do")
	cmd.Flags().IntVar(&d.Faults.Freeze, "freeze", 0, "stop `N` of them on the way, and let them go on when they are missed")
	cmd.Flags().IntVar(&d.Faults.Corrupt, "corrupt", 0, "change a byte on the way to `N` of them")
	cmd.Flags().StringVar(&d.Keep, "keep", "", "make the image at `FILE`, and leave it there")
	cmd.Flags().StringVar(&report, "report", "", "write what became of every node to `FILE`, as JSON")
	return cmd
}

// checkFaults says whether the nodes are enough: what is done is done to different ones, and
// one at least is not killed.
func checkFaults(f demo.Faults, nodes int) error {
	for _, x := range []struct {
		flag string
		n    int
	}{{"kill", f.Kill}, {"slow", f.Slow}, {"freeze", f.Freeze}, {"corrupt", f.Corrupt}} {
		if x.n < 0 {
			return usagef("--%s %d: negative", x.flag, x.n)
		}
	}
	if f.Kill > 0 && f.Kill >= nodes {
		return usagef("--kill %d: want less than the %d nodes", f.Kill, nodes)
	}
	if all := f.Kill + f.Slow + f.Freeze + f.Corrupt; all > nodes {
		return usagef("--kill, --slow, --freeze and --corrupt: %d nodes together, more than the %d there are", all, nodes)
	}
	return nil
}
