package e2e

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/test/netns"
)

// received is what has come in at the interface of a daemon's host.
func received(n *node) (int64, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/net/dev", n.daemon.Pid()))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if name, counts, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(name) == "eth0" {
			var bytes int64
			_, err := fmt.Sscan(counts, &bytes)
			return bytes, err
		}
	}
	return 0, fmt.Errorf("no eth0")
}

// longestGap watches the host of a node until the push ends and returns the longest time
// in which no data came in, after it has begun to.
func longestGap(n *node, p *push) time.Duration {
	const step, some = 10 * time.Millisecond, 16 << 10 // marks and pings are less
	tick := time.NewTicker(step)
	defer tick.Stop()
	begun, err := received(n)
	if err != nil {
		n.rig.t.Error(err)
		return 0
	}
	at, since, gap := begun, time.Now(), time.Duration(0)
	for {
		select {
		case <-p.process.Done():
			return gap
		case <-tick.C:
		}
		now, err := received(n)
		if err != nil {
			n.rig.t.Error(err)
			return 0
		}
		if now-at < some {
			continue
		}
		if at-begun > 1<<20 {
			gap = max(gap, time.Since(since))
		}
		at, since = now, time.Now()
	}
}

// What the loss of nodes costs each of the others: no data comes in for so long.
func TestGap(t *testing.T) {
	together(t)
	for _, c := range []struct {
		name    string
		victims []int
		signal  syscall.Signal
		most    time.Duration
		byHand  bool // it differs from others in which nodes it is (-matrix.all)
	}{
		{"a node killed", []int{3}, syscall.SIGKILL, 500 * time.Millisecond, true},
		{"three adjacent nodes killed", []int{2, 3, 4}, syscall.SIGKILL, 500 * time.Millisecond, false},
		{"the first and the last killed", []int{0, 7}, syscall.SIGKILL, 500 * time.Millisecond, false},
		{"a node silent", []int{3}, syscall.SIGSTOP, 6 * time.Second, true},
		{"three adjacent nodes silent", []int{2, 3, 4}, syscall.SIGSTOP, 6 * time.Second, false},
	} {
		if c.byHand && !allRows() {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			together(t)
			ctx := need(t, time.Minute)
			r := newRig(t, ctx, netns.Config{Nodes: 8})
			r.start()
			sent := makeFile(t, filepath.Join(r.dir, "sent"), 60<<20)
			p := r.startPush("raw", "--input", sent, "--output", r.data+"/file", "--rate", "10M", "--json", "--retries", "0")
			gaps := make([]time.Duration, len(r.nodes))
			var watched sync.WaitGroup
			for i, n := range r.nodes {
				if !slices.Contains(c.victims, i) {
					watched.Go(func() { gaps[i] = longestGap(n, p) })
				}
			}
			if _, err := p.process.Line(ctx, `"event":"progress"`); err != nil {
				t.Fatal(err)
			}
			for _, i := range c.victims {
				r.nodes[i].daemon.Signal(c.signal)
			}
			res := p.wait()
			states := strings.Split(strings.Repeat("committed ", 8), " ")[:8]
			for _, i := range c.victims {
				states[i] = "failed"
			}
			r.want(res, 3, states...)
			watched.Wait()
			t.Logf("nothing came for %v", gaps)
			for i, g := range gaps {
				// The figures are for a machine that does nothing else (-matrix FILE demands them).
				if g > c.most+slack()/4 || g == 0 && !slices.Contains(c.victims, i) {
					t.Errorf("%s: nothing came for %v, at most %v are allowed\n%s", r.nodes[i].Name, g, c.most, res.output)
				}
			}
		})
	}
}

// Half of the nodes die, each at a moment of its own: the rest commit.
func TestHalfOfSixteen(t *testing.T) {
	ctx := need(t, 2*time.Minute)
	const seed, nodes = 11, 16
	rng := rand.New(rand.NewPCG(seed, seed))
	for range 2 {
		r := newRig(t, ctx, netns.Config{Nodes: nodes})
		r.start()
		sent := makeFile(t, filepath.Join(r.dir, "sent"), 20<<20)
		p := r.startPush("raw", "--input", sent, "--output", r.data+"/file", "--rate", "5M", "--json", "--retries", "0")
		if _, err := p.process.Line(ctx, `"event":"plan"`); err != nil {
			t.Fatal(err)
		}
		states := make([]string, nodes)
		for i := range states {
			states[i] = "committed"
		}
		for _, i := range rng.Perm(nodes)[:nodes/2] {
			states[i] = "failed"
			moment := time.Duration(rng.Int64N(int64(400 * time.Millisecond)))
			select { // the moment itself, not a state that is waited for
			case <-time.After(moment):
			case <-ctx.Done():
				t.Fatal(ctx.Err())
			}
			r.nodes[i].daemon.Signal(syscall.SIGKILL)
		}
		res := p.wait()
		r.want(res, 3, states...)
		for i, n := range r.nodes {
			if states[i] == "committed" {
				r.same(sent, "file", n)
			}
		}
		if res.took > 10*time.Second+slack() {
			t.Errorf("took %v", res.took)
		}
	}
}
