package node

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/identity"
	"github.com/dolly-img/dolly-img/ring/raw"
	"github.com/dolly-img/dolly-img/ring/raw/disk"
	"github.com/dolly-img/dolly-img/ring/raw/gpt"
	"github.com/dolly-img/dolly-img/test/loopdev"
)

// run runs a program on devices and files of the test.
func run(t *testing.T, program string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		if os.Getenv("DOLLY_IMG_COUNTERPARTS") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	out, err := exec.Command(program, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", program, args, err, out)
	}
	return string(out)
}

// grow makes a tree of files below dir: of random bytes, of zeros, with holes, links, and many small ones.
func grow(t *testing.T, dir string, seed uint64) {
	t.Helper()
	rnd := rand.NewChaCha8([32]byte{byte(seed)})
	write := func(name string, size int, at ...int64) {
		b := make([]byte, size)
		rnd.Read(b)
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for _, off := range append(at, 0) {
			if _, err := f.WriteAt(b, off); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, d := range []string{"small", "deep/er"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o750); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 200 {
		write(fmt.Sprint("small/", i), 1+i*37)
	}
	write("large", 5<<20+123)
	write("deep/er/sparse", 4096, 3<<20, 7<<20)
	if err := os.WriteFile(filepath.Join(dir, "zeros"), make([]byte, 2<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../large", filepath.Join(dir, "deep/link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "large"), 0o4711); err != nil {
		t.Fatal(err)
	}
}

// listing describes all files below dir.
func listing(t *testing.T, dir string) (lines []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		line := fmt.Sprintf("%s %v %v", strings.TrimPrefix(path, dir), info.Mode(), info.ModTime().UnixNano())
		switch {
		case info.Mode().IsRegular():
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %d %x", len(b), sha256.Sum256(b))
		case info.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += " " + to
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// A madeDisk is a file with what a whole disk holds: a GPT, ext4 in partition 1, and xfs in partition 2.
type madeDisk struct {
	file   string
	size   int64
	sector int
	trees  [2][]string
}

var filesystems = [2]string{"ext4", "xfs"}

func makeDisk(t *testing.T, dir string, sector int) madeDisk {
	t.Helper()
	const size = 400 << 20
	d := loopdev.New(t, dir, size, loopdev.Options{Sector: sector})
	m := madeDisk{file: d.File, size: size, sector: sector}
	run(t, "sgdisk", "-n", "1:1M:+48M", "-c", "1:boot", "-n", "2:0:0", "-c", "2:root", d.Path)
	f := d.Open(t, os.O_RDONLY)
	table, err := gpt.Read(f, size, int64(sector))
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	for _, p := range table.Partitions {
		d.AddPartition(t, p.Number, p.Start, p.Size)
	}
	run(t, "mkfs.ext4", "-q", d.Partition(1))
	run(t, "mkfs.xfs", "-q", "-s", fmt.Sprint("size=", sector), d.Partition(2))
	for i, kind := range filesystems {
		if err := d.Mount(t, d.Partition(i+1), kind, 0, func(dir string) {
			grow(t, dir, uint64(i))
			m.trees[i] = listing(t, dir)
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Detach(); err != nil {
		t.Fatal(err)
	}
	return m
}

// check compares a device with the disk.
func (m madeDisk) check(t *testing.T, d *loopdev.Device) {
	t.Helper()
	if out := run(t, "sgdisk", "-v", d.Path); !strings.Contains(out, "No problems found") {
		t.Errorf("%s: sgdisk -v says:\n%s", d.Path, out)
	}
	if got := d.Partitions(t); !slices.Equal(got, []int{1, 2}) {
		t.Fatalf("%s: the kernel knows the partitions %v", d.Path, got)
	}
	run(t, "e2fsck", "-fn", d.Partition(1))
	run(t, "xfs_repair", "-n", d.Partition(2))
	for i, kind := range filesystems {
		if err := d.Mount(t, d.Partition(i+1), kind, unix.MS_RDONLY, func(dir string) {
			if got := listing(t, dir); !slices.Equal(got, m.trees[i]) {
				t.Errorf("%s: %s has %d files that are not the %d of the source", d.Path, kind, len(got), len(m.trees[i]))
			}
		}); err != nil {
			t.Errorf("%s: %s does not mount: %v", d.Path, kind, err)
		}
	}
}

// ringOfNodes serves nodes with these devices each, by their names, and returns what a server needs to reach them.
func ringOfNodes(t *testing.T, loops string, nodes []map[string]*loopdev.Device) ring.Config {
	t.Helper()
	keys := filepath.Join(t.TempDir(), "keys")
	if err := identity.Init(keys, identity.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	sender, err := identity.Load(keys, identity.Sender)
	if err != nil {
		t.Fatal(err)
	}
	member, err := identity.Load(keys, identity.Node)
	if err != nil {
		t.Fatal(err)
	}
	client := func(protocol string) func(string) *tls.Config {
		return func(node string) *tls.Config { return sender.ClientConfig(protocol, node) }
	}
	cfg := ring.Config{TLS: client(ring.ALPNControl), DataTLS: client(ring.ALPNData), Confirm: func(context.Context, []ring.Row) error { return nil }}
	for i, devices := range nodes {
		roots := disk.Host()
		roots.Loops = loops
		a := &acceptor{policy: &identity.Policy{}, disks: roots, hint: kindTold, log: slog.New(slog.NewTextHandler(io.Discard, nil))}
		for name, d := range devices {
			a.policy.Devices = append(a.policy.Devices, identity.Device{Name: name, Path: d.Path})
		}
		n, err := ring.NewNode(ring.NodeConfig{
			TLS:     member.ServerConfig(ring.ALPNControl, ring.ALPNData),
			DataTLS: func(n string) *tls.Config { return member.ClientConfig(ring.ALPNData, n) },
			Accept:  a.accept,
		})
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan struct{})
		go func() { defer close(served); _ = n.Serve(l) }()
		t.Cleanup(func() { _ = n.Shutdown(context.Background()); <-served })
		cfg.Nodes = append(cfg.Nodes, ring.Peer{Name: fmt.Sprint("n", i+1), Addrs: []string{l.Addr().String()}})
	}
	return cfg
}

// clone sends a file to a device of every node.
func clone(t *testing.T, cfg ring.Config, file, name string, what meta.Device) *ring.Report {
	t.Helper()
	source, err := raw.OpenFile(file)
	if err != nil {
		t.Error(err)
		return nil
	}
	defer source.Close()
	m := meta.Transfer{Kind: meta.KindRaw, Output: "device:" + name, Device: &what}
	cfg.Source = source
	if cfg.Meta, err = m.Encode(); err != nil {
		t.Error(err)
		return nil
	}
	report, err := ring.Send(t.Context(), cfg)
	if err != nil {
		t.Error(err)
	}
	return report
}

// A whole disk on twelve larger devices of four nodes, in three transfers at once: the table is that of each device, the file
// systems are whole, and what is in them is what the source has.
func TestCloneDisk(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		t.Run(fmt.Sprint(sector), func(t *testing.T) {
			dir := t.TempDir()
			m := makeDisk(t, dir, sector)
			names := []string{"a", "b", "c"}
			nodes := make([]map[string]*loopdev.Device, 4)
			for i := range nodes {
				nodes[i] = map[string]*loopdev.Device{}
				for k, name := range names {
					size := m.size + int64(i*len(names)+k)*int64(sector)<<(2*i)
					nodes[i][name] = loopdev.New(t, dir, size, loopdev.Options{Sector: sector})
				}
			}
			cfg := ringOfNodes(t, dir, nodes)
			var work sync.WaitGroup
			for _, name := range names {
				work.Go(func() {
					r := clone(t, cfg, m.file, name, meta.Device{Holds: meta.HoldsDisk})
					if r == nil || r.Count() != len(nodes) {
						t.Errorf("%s: %+v", name, r)
					}
				})
			}
			work.Wait()
			if t.Failed() {
				return
			}
			for _, node := range nodes {
				for _, d := range node {
					m.check(t, d)
				}
			}
		})
	}
}
