package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/hinted"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/image"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/bytesize"
	"github.com/dolly-img/dolly-img/ring/identity"
	"github.com/dolly-img/dolly-img/ring/printable"
)

const maxDemoNodes = 64

func newDemo() *cobra.Command {
	var d demo
	cmd := &cobra.Command{
		Use:   "demo [IMAGE]",
		Short: "Watch a ring of nodes on this machine",
		Long: `Demo starts nodes as processes of their own on the loopback interface, pushes IMAGE (or
a SIF of 256 MiB that it makes) to all of them through the ring, and reads every copy
again to compare it. It needs neither root nor anything installed; keys, caches and
copies are in a temporary directory (in $TMPDIR) that is removed at the end.

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
			if d.count < 1 || d.count > maxDemoNodes {
				return usagef("--nodes %d: want 1 to %d", d.count, maxDemoNodes)
			}
			if err := d.faults.check(d.count); err != nil {
				return err
			}
			if len(args) > 0 {
				d.image = args[0]
			}
			d.cmd, d.out = cmd, cmd.OutOrStdout()
			return d.run(cmd.Context())
		},
	}
	cmd.Flags().IntVar(&d.count, "nodes", 4, "start `N` nodes")
	cmd.Flags().IntVar(&d.faults.kill, "kill", 0, "kill `N` of them on the way")
	cmd.Flags().IntVar(&d.faults.slow, "slow", 0, "have `N` of them take a tenth of what the others do")
	cmd.Flags().IntVar(&d.faults.freeze, "freeze", 0, "stop `N` of them on the way, and let them go on when they are missed")
	cmd.Flags().IntVar(&d.faults.corrupt, "corrupt", 0, "change a byte on the way to `N` of them")
	cmd.Flags().StringVar(&d.report, "report", "", "write what became of every node to `FILE`, as JSON")
	return cmd
}

// demo is one run of the command.
type demo struct {
	cmd    *cobra.Command
	out    io.Writer
	image  string // "": to be made
	count  int
	faults demoFaults
	report string

	screen *screen
	struck bool   // what happens on the way did
	dir    string // temporary
	digest string // of the image
	size   int64
	nodes  []*demoNode
}

func (d *demo) run(ctx context.Context) (err error) {
	if d.dir, err = os.MkdirTemp("", "dolly-img-demo-"); err != nil {
		return hinted.Errorf("set TMPDIR to a writable directory", "demo: %w", err)
	}
	defer func() {
		if rerr := os.RemoveAll(d.dir); err == nil && rerr != nil {
			err = fmt.Errorf("demo: clean up: %w", rerr)
		}
	}()
	if err := d.prepare(ctx); err != nil {
		return err
	}
	if err := identity.Init(d.keys(), identity.InitOptions{Cluster: "demo"}); err != nil {
		return err
	}
	defer d.stop()
	if err := d.start(ctx); err != nil {
		return err
	}
	if err := d.bend(); err != nil {
		return err
	}
	if err := d.push(ctx); err != nil {
		return err
	}
	if err := d.compare(); err != nil {
		return err
	}
	fmt.Fprint(d.out, `
The same on real hosts:
  dolly-img keys init --keys ./keys      # then ca.pem and node.pem to /etc/dolly-img/keys on every node
  dolly-img daemon                       # on every node
  dolly-img push IMAGE.sif --keys ./keys --nodes 'node[001-128]'
`)
	return nil
}

func (d *demo) keys() string { return filepath.Join(d.dir, "keys") }

// prepare finds or makes the image, sees that its copies have room, and takes the
// digest with which they will be compared.
func (d *demo) prepare(ctx context.Context) error {
	made := d.image == ""
	d.size = demoImageSize
	copies := int64(d.count)
	if made {
		copies++
	} else {
		if err := image.CheckSIF(d.image); err != nil {
			return err
		}
		info, err := os.Stat(d.image)
		if err != nil {
			return err
		}
		d.size = info.Size()
	}
	var st unix.Statfs_t
	if err := unix.Statfs(d.dir, &st); err == nil {
		if free := int64(st.Bavail) * st.Bsize; free < copies*d.size {
			return hinted.Errorf("set TMPDIR to a directory with more room, or use fewer --nodes",
				"demo: needs %s, %s are free in %s", bytesize.Text(copies*d.size), bytesize.Text(free), os.TempDir())
		}
	}
	if made {
		d.image = filepath.Join(d.dir, "demo.sif")
		if err := makeDemoImage(ctx, d.image); err != nil {
			return err
		}
	}
	var err error
	if d.digest, d.size, err = hashFile(d.image); err != nil {
		return err
	}
	fmt.Fprintf(d.out, "image %s, %s\n%s\n", printable.Line(filepath.Base(d.image)), bytesize.Text(d.size), d.digest)
	return nil
}

// push is the push command with the nodes of the demo.
func (d *demo) push(ctx context.Context) error {
	m := &meta.Transfer{Kind: meta.KindImage, Ref: demoRef}
	d.screen = newScreen(d.cmd.ErrOrStderr())
	j := &job{
		cmd: d.cmd, screen: d.screen, image: filepath.Base(d.image), what: "manifest",
		enough: d.count - d.faults.kill, plain: d.faults.corrupt > 0, rate: d.faults.rate(d.size),
		flags: &sendFlags{keys: d.keys(), report: d.report, retries: 3, maxDirect: 4},
		open: func(context.Context) (ring.Source, *meta.Transfer, error) {
			source, err := image.OpenSIF(d.image, m)
			return source, m, err
		},
		resolve: func(context.Context) ([]ring.Peer, error) { return d.peers(), nil },
	}
	for _, n := range d.nodes {
		j.nodes = append(j.nodes, n.name)
	}
	if d.faults.any() {
		j.watch = d.strike
	}
	d.announce()
	fmt.Fprintf(d.out, "push to %d nodes in a ring, each a process of its own\n", d.count)
	return j.run(ctx)
}

const demoRef = "localhost/demo:latest"

// compare reads every copy again, from the caches as a runtime would find them.
func (d *demo) compare() error {
	wrong, missed := 0, 0
	for _, n := range d.nodes {
		done, how := n.happened()
		if !done {
			missed++
		}
		if n.killed {
			fmt.Fprintf(d.out, "%s  was killed\n", n.name)
			continue
		}
		digest, err := n.digest()
		switch {
		case err != nil:
			wrong++
			fmt.Fprintf(d.out, "%s  copy cannot be read: %s\n", n.name, printable.Line(err.Error()))
		case digest != d.digest:
			wrong++
			fmt.Fprintf(d.out, "%s  copy is wrong: %s\n", n.name, digest)
		default:
			fmt.Fprintf(d.out, "%s  copy read again: %s, right%s\n", n.name, digest, how)
		}
	}
	if wrong > 0 {
		return &statusError{ring.ExitPartial, fmt.Errorf("demo: %d copies are wrong", wrong)}
	}
	if missed > 0 {
		return hinted.Errorf("take a larger image", "demo: the transfer was over before everything had happened")
	}
	return nil
}

// digest hashes the node's copy.
func (n *demoNode) digest() (string, error) {
	c, err := cache.Open(n.cache)
	if err != nil {
		return "", err
	}
	path, err := c.Path(demoRef)
	if err != nil {
		return "", err
	}
	digest, _, err := hashFile(path)
	return digest, err
}

func hashFile(path string) (digest string, size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	hash := sha256.New()
	size, err = io.CopyBuffer(hash, f, make([]byte, 1<<20))
	return "sha256:" + hex.EncodeToString(hash.Sum(nil)), size, err
}
