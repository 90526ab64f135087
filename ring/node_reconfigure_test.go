package ring

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/dolly-img/dolly-img/ring/identity"
)

// A transfer that runs keeps what it was admitted with, also for a link that it must open anew; the
// next one meets the new configuration, as a whole.
func TestReconfigure(t *testing.T) {
	c := newCluster(t, 2, nil)
	blob := random(1, 12<<20)
	src := newMemSource(true, blob)
	node := c.nodes[1]
	next := *node.node.config()
	next.AllowPlain = false
	next.Accept = func(context.Context, Request) (Sink, error) { return nil, errors.New("the new policy says no") }
	bad := next
	bad.Transfers = 1000
	var once sync.Once
	src.read = func(_ int, off int64) {
		if off < 6<<20 {
			return
		}
		once.Do(func() {
			if err := node.node.Reconfigure(bad); err == nil {
				t.Error("more transfers than there is memory for")
			}
			if !node.node.config().AllowPlain || node.node.Running() != 1 {
				t.Errorf("a configuration that was refused is in force; %d transfers run", node.node.Running())
			}
			if err := node.node.Reconfigure(next); err != nil {
				t.Error(err)
			}
			node.listener.mu.Lock()
			defer node.listener.mu.Unlock()
			for _, link := range node.listener.conns[1:] { // the first is the server's control
				link.Close()
			}
		})
	}
	cfg := c.config(src)
	cfg.Plain = true
	r, err := send(t, cfg)
	if err != nil {
		t.Fatal(err)
	}
	c.wants(r, Committed, blob)
	if o := <-node.outcomes; o.State != Committed {
		t.Errorf("outcome %+v", o)
	}

	for plain, want := range map[bool]string{true: "does not allow plain data links", false: "the new policy says no"} {
		cfg := c.config(newMemSource(true, random(2, 100)))
		cfg.Plain = plain
		if r, err := send(t, cfg); err != nil || r.Nodes[1].State != Refused || !strings.Contains(r.Nodes[1].Reason, want) {
			t.Errorf("plain %v: %+v, %v", plain, r.Nodes[1], err)
		}
	}
}

// New connections are judged by the new keys.
func TestReconfigureKeys(t *testing.T) {
	c := newCluster(t, 1, nil)
	dir := t.TempDir()
	if err := identity.Init(dir, identity.InitOptions{Cluster: "test"}); err != nil {
		t.Fatal(err)
	}
	id, err := identity.Load(dir, identity.Node)
	if err != nil {
		t.Fatal(err)
	}
	next := *c.nodes[0].node.config()
	next.TLS = id.ServerConfig(ALPNControl, ALPNData)
	if err := c.nodes[0].node.Reconfigure(next); err != nil {
		t.Fatal(err)
	}
	for want, load := range map[State]string{Refused: keys(), Committed: dir} {
		if c.send, err = identity.Load(load, identity.Sender); err != nil {
			t.Fatal(err)
		}
		if r, err := send(t, c.config(newMemSource(true, random(2, 100)))); err != nil || r.Nodes[0].State != want {
			t.Errorf("want %s, got %+v, %v", want, r.Nodes[0], err)
		}
	}
}
