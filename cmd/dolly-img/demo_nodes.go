package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/launch"
	"github.com/dolly-img/dolly-img/ring"
)

// demoNode is one node of the demo: this program again, as a daemon.
type demoNode struct {
	name   string
	cache  string
	proc   *launch.Process
	killed bool
}

// start starts all nodes; what was started is in d.nodes also after an error.
func (d *demo) start(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("demo: find this program: %w", err)
	}
	var mu sync.Mutex
	nodes := make([]*demoNode, d.count)
	var group errgroup.Group
	for i := range nodes {
		name := fmt.Sprintf("node%d", i+1)
		group.Go(func() error {
			n := &demoNode{name: name, cache: filepath.Join(d.dir, name)}
			cmd := exec.Command(self, "daemon", "--listen", "127.0.0.1:0", "--cache", n.cache, "--keys", d.keys())
			cmd.Args[0] = "dolly-img"
			proc, err := launch.Start(ctx, cmd)
			if err != nil {
				return fmt.Errorf("demo: start %s: %w", name, err)
			}
			n.proc = proc
			mu.Lock()
			nodes[i] = n
			mu.Unlock()
			return nil
		})
	}
	err = group.Wait()
	for _, n := range nodes {
		if n != nil {
			d.nodes = append(d.nodes, n)
		}
	}
	return err
}

// stop ends every node that still runs.
func (d *demo) stop() {
	var group sync.WaitGroup
	for _, n := range d.nodes {
		if !n.killed {
			group.Go(func() { _ = n.proc.Stop(5 * time.Second) })
		}
	}
	group.Wait()
}

func (d *demo) peers() []ring.Peer {
	var peers []ring.Peer
	for _, n := range d.nodes {
		peers = append(peers, ring.Peer{Name: n.name, Addrs: []string{n.proc.Addr}})
	}
	return peers
}

// killOnTheWay kills nodes once a quarter of the image has reached every node.
func (d *demo) killOnTheWay() func(ring.Event, *screen) {
	done := false
	return func(e ring.Event, s *screen) {
		if done || e.Kind != ring.EventProgress || e.Bytes < d.size/4 {
			return
		}
		done = true
		for _, n := range d.victims() {
			n.killed = true
			n.proc.Kill()
			s.printf("killed %s (process %d) at %s of %s", n.name, n.proc.Pid(), bytesText(e.Bytes), bytesText(d.size))
		}
	}
}

// victims are neighbours, from the second node on: the first and the last one of
// the chain live as long as there is a choice.
func (d *demo) victims() []*demoNode {
	var victims []*demoNode
	for i := range d.kill {
		victims = append(victims, d.nodes[(i+1)%d.count])
	}
	return victims
}
