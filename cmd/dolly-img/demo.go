package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/demo"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/push"
	"github.com/dolly-img/dolly-img/ring"
)

const maxDemoNodes = 64

// demoOnHosts says, after a demo, how to do the same on real machines.
const demoOnHosts = `
The same on real hosts:
  dolly-img keys init --keys ./keys      # then copy ca.pem and node.pem to /etc/dolly-img/keys on every node
  dolly-img daemon                       # on every node
  dolly-img push IMAGE.sif --keys ./keys --nodes 'node[001-128]'
`

func newDemo() *cobra.Command {
	var d demo.Demo
	var report string
	var web webFlags
	cmd := &cobra.Command{
		Use:   "demo [IMAGE]",
		Short: "Watch a ring of nodes on this machine",
		Long: `Demo starts nodes on the loopback interface, each a process of its own, and pushes IMAGE (or
a SIF of 256 MiB that it makes) to all of them through the ring. Then it reads every copy
again and compares it. It needs neither root nor anything installed. Keys, caches and copies
are in a temporary directory (in $TMPDIR) that is removed at the end. With --keep the image
that it makes stays, and can be pushed to real nodes.

With --kill demo kills nodes in the middle of the transfer, and the others go on without
them. With --slow nodes take a tenth of the speed of the others. With --freeze nodes are
stopped until they are missed, and then go on. With --corrupt a byte is changed on the way to
nodes. The exit status is 0 if the copies of all nodes that were not killed are right.`,
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
			if err := web.check(); err != nil {
				return err
			}
			screen := newScreen(cmd.ErrOrStderr())
			d.Out, d.Say, d.Software = cmd.OutOrStdout(), screen.printf, software()
			d.Daemon = func(cache, keys string) []string {
				return []string{"daemon", "--listen", "127.0.0.1:0", "--cache", cache, "--keys", keys}
			}
			d.Show = func(ctx context.Context, p *push.Push, watch func(ring.Event)) error {
				j := &job{Push: p, cmd: cmd, screen: screen, flags: &sendFlags{report: report, web: web}, watch: watch}
				return j.run(ctx)
			}
			err := d.Run(cmd.Context())
			if wrong := new(demo.WrongError); errors.As(err, &wrong) {
				return &statusError{ring.ExitPartial, err}
			}
			if err == nil {
				fmt.Fprint(cmd.OutOrStdout(), demoOnHosts)
			}
			return err
		},
	}
	cmd.Flags().IntVar(&d.Nodes, "nodes", 4, "start `N` nodes")
	cmd.Flags().IntVar(&d.Faults.Kill, "kill", 0, "kill `N` of them on the way")
	cmd.Flags().IntVar(&d.Faults.Slow, "slow", 0, "let `N` of them take a tenth of the speed of the others")
	cmd.Flags().IntVar(&d.Faults.Freeze, "freeze", 0, "stop `N` of them on the way, and let them go on when they are missed")
	cmd.Flags().IntVar(&d.Faults.Corrupt, "corrupt", 0, "change a byte on the way to `N` of them")
	cmd.Flags().StringVar(&d.Keep, "keep", "", "make the image at `FILE`, and leave it there")
	web.add(cmd)
	cmd.Flags().StringVar(&report, "report", "", "write what became of every node to `FILE`, as JSON")
	return cmd
}

// checkFaults checks that there are enough nodes: each fault happens to another node, and at least one node is not
// killed.
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
