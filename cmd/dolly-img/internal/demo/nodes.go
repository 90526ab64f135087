package demo

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/launch"
	"github.com/dolly-img/dolly-img/ring"
)

// node is one node of the demo: this program again, as a daemon.
type node struct {
	name   string
	cache  string
	proc   *launch.Process
	addr   string // the address by which the others reach it
	killed bool

	fate fate
	// limit is the rate of a node that is to be slow, in bytes per second.
	limit int64
	// cable is the bad cable in front of the node, or nil. It sets hit when it changed a byte.
	cable    *damager
	hit      atomic.Bool
	frozenAt time.Time
	thawedAt time.Time
}

// start starts all nodes. After an error d.nodes has those that were started.
func (d *Demo) start(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("demo: find this program: %w", err)
	}
	var mu sync.Mutex
	nodes := make([]*node, d.Nodes)
	var group errgroup.Group
	fates := d.Faults.fates(d.Nodes)
	for i := range nodes {
		name := fmt.Sprintf("node%d", i+1)
		group.Go(func() error {
			n := &node{name: name, cache: filepath.Join(d.dir, name), fate: fates[i]}
			keys, err := d.keysOf(n)
			if err != nil {
				return fmt.Errorf("demo: keys of %s: %w", name, err)
			}
			cmd := exec.Command(self, d.Daemon(n.cache, keys)...)
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
func (d *Demo) stop() {
	var group sync.WaitGroup
	for _, n := range d.nodes {
		if !n.killed {
			n.proc.Signal(syscall.SIGCONT) // a frozen process could not stop
			group.Go(func() { _ = n.proc.Stop(5 * time.Second) })
		}
	}
	group.Wait()
	for _, n := range d.nodes {
		if n.cable != nil {
			n.cable.close()
		}
	}
}

func (d *Demo) peers() []ring.Peer {
	var peers []ring.Peer
	for _, n := range d.nodes {
		peers = append(peers, ring.Peer{Name: n.name, Addrs: []string{n.addr}})
	}
	return peers
}
