package node

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"testing"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/identity"
	"github.com/dolly-img/dolly-img/ring/raw"
	"github.com/dolly-img/dolly-img/ring/raw/disk"
	"github.com/dolly-img/dolly-img/test/loopdev"
)

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
		a := &acceptor{policy: &identity.Policy{}, disks: roots, users: &deviceUsers{}, hint: kindTold, log: slog.New(slog.NewTextHandler(io.Discard, nil))}
		for name, d := range devices {
			a.policy.Devices = append(a.policy.Devices, identity.Device{Name: name, Path: d.Path})
		}
		n, err := ring.NewNode(ring.NodeConfig{
			TLS:     member.ServerConfig(ring.ALPNControl, ring.ALPNData),
			DataTLS: func(n string) *tls.Config { return member.ClientConfig(ring.ALPNData, n) },
			Client:  clientOf,
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

// A whole disk on two larger devices of each of two nodes, in two transfers at once: the table is that of each device, the file
// systems are whole, and what is in them is what the source has. Both sizes of sectors are TestDeviceDisks's in test/e2e.
func TestCloneDisk(t *testing.T) {
	const sector = 4096
	dir := t.TempDir()
	m := loopdev.MakeDisk(t, dir, sector)
	names := []string{"a", "b"}
	nodes := make([]map[string]*loopdev.Device, 2)
	for i := range nodes {
		nodes[i] = map[string]*loopdev.Device{}
		for k, name := range names {
			size := m.Size + int64(i*len(names)+k)*int64(sector)<<(2*i)
			nodes[i][name] = loopdev.New(t, dir, size, loopdev.Options{Sector: sector})
		}
	}
	cfg := ringOfNodes(t, dir, nodes)
	var work sync.WaitGroup
	for _, name := range names {
		work.Go(func() {
			r := clone(t, cfg, m.File, name, meta.Device{Holds: meta.HoldsDisk})
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
			m.Check(t, d)
		}
	}
}
