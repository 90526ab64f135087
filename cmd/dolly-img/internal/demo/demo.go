package demo

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/image"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/push"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/bytesize"
	"github.com/dolly-img/dolly-img/ring/errkind"
	"github.com/dolly-img/dolly-img/ring/identity"
	"github.com/dolly-img/dolly-img/ring/printable"
)

// Demo is one run: nodes on this machine, a push to them, and faults that happen to them meanwhile.
type Demo struct {
	// Image is the path of a SIF. If it is "", the demo makes an image, at Keep if that is not "".
	Image    string
	Keep     string
	Nodes    int
	Faults   Faults
	Software string // this program and its version, as nodes are told

	// Out gets what the demo prints in order, and Say prints a line beside the progress of the push.
	Out io.Writer
	Say func(format string, args ...any)
	// Daemon returns the arguments with which this program is a node that listens on a free port of the loopback
	// interface, with these directories of a cache and of keys.
	Daemon func(cache, keys string) []string
	// Show runs the push, and shows the user what happens. It calls watch with every event.
	Show func(ctx context.Context, p *push.Push, watch func(ring.Event)) error

	// struck says that nodes were killed and frozen.
	struck bool
	// dir is a temporary directory.
	dir    string
	digest string // of the image
	size   int64
	nodes  []*node
}

// WrongError says how many copies are wrong.
type WrongError struct{ Copies int }

func (e *WrongError) Error() string { return fmt.Sprintf("demo: %d copies are wrong", e.Copies) }

// Run starts the nodes, pushes the image and compares the copies.
func (d *Demo) Run(ctx context.Context) (err error) {
	if d.dir, err = os.MkdirTemp("", "dolly-img-demo-"); err != nil {
		return errkind.Errorf("temp-unwritable", "demo: %w", err)
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
	if d.Keep != "" {
		fmt.Fprintf(d.Out, "the image stays at %s\n", printable.Line(d.Keep))
	}
	return nil
}

func (d *Demo) keys() string { return filepath.Join(d.dir, "keys") }

// prepare finds or makes the image, checks that its copies have room, and computes the digest with which they will be
// compared.
func (d *Demo) prepare(ctx context.Context) error {
	made := d.Image == ""
	if d.Keep != "" {
		if _, err := os.Lstat(d.Keep); err == nil {
			return errkind.Errorf("demo-keep", "demo: %s exists already", d.Keep)
		}
	}
	d.size = demoImageSize
	copies := int64(d.Nodes)
	if made {
		copies++
	} else {
		if err := image.CheckSIF(d.Image); err != nil {
			return err
		}
		info, err := os.Stat(d.Image)
		if err != nil {
			return err
		}
		d.size = info.Size()
	}
	var st unix.Statfs_t
	if err := unix.Statfs(d.dir, &st); err == nil {
		if free := int64(st.Bavail) * st.Bsize; free < copies*d.size {
			return errkind.Errorf("temp-full",
				"demo: needs %s, %s are free in %s", bytesize.Text(copies*d.size), bytesize.Text(free), os.TempDir())
		}
	}
	if made {
		d.Image = filepath.Join(d.dir, "demo.sif")
		if d.Keep != "" {
			d.Image = d.Keep
		}
		if err := makeDemoImage(ctx, d.Image); err != nil {
			return err
		}
	}
	var err error
	if d.digest, d.size, err = hashFile(d.Image); err != nil {
		return err
	}
	fmt.Fprintf(d.Out, "image %s, %s\n%s\n", printable.Line(filepath.Base(d.Image)), bytesize.Text(d.size), d.digest)
	return nil
}

// push sends the image to the nodes of the demo.
func (d *Demo) push(ctx context.Context) error {
	p := &push.Push{
		Name: filepath.Base(d.Image), What: sifFile(d.Image), Meta: meta.Transfer{Kind: meta.KindImage, Ref: demoRef},
		Peers: d.peers(), Keys: d.keys(), Enough: d.Nodes - d.Faults.Kill, Plain: d.Faults.Corrupt > 0, Rate: d.Faults.rate(d.size),
		Straggler: ring.Demote, Retries: 3, MaxDirect: 4, Software: d.Software,
	}
	for _, n := range d.nodes {
		p.Nodes = append(p.Nodes, n.name)
	}
	watch := func(ring.Event) {}
	if d.Faults.any() {
		watch = d.strike
	}
	d.announce()
	fmt.Fprintf(d.Out, "push to %d nodes in a ring, each a process of its own\n", d.Nodes)
	return d.Show(ctx, p, watch)
}

// sifFile is the path of the image.
type sifFile string

// Open opens the image.
func (f sifFile) Open(_ context.Context, _ *push.Push, m *meta.Transfer) (ring.Source, error) {
	return image.OpenSIF(string(f), m)
}

const demoRef = "localhost/demo:latest"

// compare reads every copy again, where a runtime would find it in the cache.
func (d *Demo) compare() error {
	wrong, missed := 0, 0
	for _, n := range d.nodes {
		done, how := n.happened()
		if !done {
			missed++
		}
		if n.killed {
			fmt.Fprintf(d.Out, "%s  was killed\n", n.name)
			continue
		}
		digest, err := n.digest()
		switch {
		case err != nil:
			wrong++
			fmt.Fprintf(d.Out, "%s  copy cannot be read: %s\n", n.name, printable.Line(err.Error()))
		case digest != d.digest:
			wrong++
			fmt.Fprintf(d.Out, "%s  copy is wrong: %s\n", n.name, digest)
		default:
			fmt.Fprintf(d.Out, "%s  copy read again: %s, right%s\n", n.name, digest, how)
		}
	}
	if wrong > 0 {
		return &WrongError{wrong}
	}
	if missed > 0 {
		return errkind.Errorf("demo-early", "demo: the transfer was over before everything had happened")
	}
	return nil
}

// digest hashes the node's copy.
func (n *node) digest() (string, error) {
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
