// Sample serves the page with a made-up transfer, so that the page can be looked at and measured without nodes:
//
//	go run ./cmd/dolly-img/internal/web/sample -nodes 1000 -warm
//
// It prints the address of the page and ends when its standard input does.
package main

import (
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/dolly-img/dolly-img/cache/warm"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/web"
	"github.com/dolly-img/dolly-img/ring"
)

func main() {
	nodes := flag.Int("nodes", 1000, "so many nodes")
	warms := flag.Bool("warm", false, "show a controller, too")
	flag.Parse()
	if err := run(*nodes, *warms); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(nodes int, warms bool) error {
	s, err := web.Listen("")
	if err != nil {
		return err
	}
	defer s.Close()
	fmt.Println(s.URL())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()
	if warms {
		s.Warm(controller(time.Now()))
	}
	c := s.Chain("torch_25.10.sif")
	p := newPush(nodes)
	for range 120 { // as if it had begun a while ago
		c.Snapshot(p.second())
	}
	for tick := time.NewTicker(time.Second); ; {
		select {
		case <-tick.C:
			c.Snapshot(p.second())
		case <-ended:
			return nil
		}
	}
}

const (
	total = 40e9
	hard  = `<img src=x onerror=alert(1)> "said" by a node & its </script>` // what a node may say
)

// push is a transfer that is made up.
type push struct {
	rng   *rand.Rand
	now   time.Time
	begun time.Time
	nodes []ring.NodeNow
}

func newPush(n int) *push {
	p := &push{rng: rand.New(rand.NewPCG(1, 2)), now: time.Now().Add(-120 * time.Second)}
	p.begun = p.now
	for i := range n {
		p.nodes = append(p.nodes, ring.NodeNow{
			Name: fmt.Sprintf("node%03d", i+1), State: ring.Serving, Wait: ring.WaitFeeder, WaitsFor: i, Since: p.now, Feeder: i, Linked: true,
		})
	}
	for k, out := range []ring.NodeNow{
		{State: ring.Failed, Cause: ring.Cause{Fault: ring.FaultSilent, Text: "lost during the transfer: no answer from ", Addr: "10.0.0.7:9998", After: " in 5s"}},
		{State: ring.Unreachable, Wait: ring.WaitAnswer, Cause: ring.Cause{Fault: ring.FaultPort, Text: "connection refused by ", Addr: "10.0.0.9:9998"}},
		{State: ring.Refused, Cause: ring.Cause{Fault: ring.FaultDenied, Text: hard}},
		{State: ring.Lost, Wait: ring.WaitAnswer, Cause: ring.Cause{Fault: ring.FaultSilent, Text: "lost during the transfer: no answer from ", Addr: "10.0.0.12:9998", After: " in 5s"}},
		{State: ring.Held},
	} {
		for each := range max(1, n/300) {
			i := (k*7+3)*n/40%n + each*2
			if i >= n-1 {
				continue
			}
			out.Name, out.Since, out.WaitsFor, out.Feeder, out.Bytes = p.nodes[i].Name, p.now.Add(40*time.Second), -1, -1, total/5
			out.Bypassed = !out.State.Good()
			p.nodes[i] = out
		}
	}
	feeder := 0
	for i := range p.nodes {
		if n := &p.nodes[i]; n.State == ring.Serving {
			n.Feeder, n.WaitsFor = feeder, feeder
			feeder = i + 1
		}
	}
	if slow := n * 3 / 4; slow < n-1 {
		s := &p.nodes[slow]
		s.Slow, s.Wait, s.WaitsFor, s.Bypassed, s.Feeder = true, ring.WaitDisk, -1, true, n
		s.Cause = ring.Cause{Text: "slow: disk 11 MB/s; served behind the others"}
		p.nodes[slow+1].Feeder, p.nodes[slow+1].WaitsFor = slow, slow
	}
	return p
}

// second has a second pass.
func (p *push) second() ring.NodesSnapshot {
	p.now = p.now.Add(time.Second)
	t := p.now.Sub(p.begun).Seconds()
	rate := 112e6 + 6e6*p.rng.Float64()
	if int(t)%50 > 44 {
		rate /= 3
	}
	s := ring.NodesSnapshot{Time: p.now, Transfer: "0123456789abcdef", Phase: ring.PhaseSend, Nodes: make([]ring.NodeNow, len(p.nodes))}
	least, serving := int64(total), 0
	for i := range p.nodes {
		n := &p.nodes[i]
		if n.State != ring.Serving {
			continue
		}
		serving++
		n.Rate = int64(rate * (0.98 + 0.04*p.rng.Float64()))
		if n.Slow {
			n.Rate = 11e6
		}
		if n.Bytes = min(n.Bytes+n.Rate, total); n.Bytes < least && !n.Slow {
			least = n.Bytes
		}
		if p.rng.IntN(20) == 0 && !n.Slow { // what a node waits for most of the time differs from second to second
			n.Since = p.now
			if n.Wait, n.WaitsFor = ring.WaitFeeder, n.Feeder; p.rng.IntN(3) == 0 {
				n.Wait, n.WaitsFor = ring.WaitDisk, -1
			}
		}
	}
	copy(s.Nodes, p.nodes)
	s.Sums = ring.Event{Kind: ring.EventProgress, Bytes: least, Total: total, Rate: rate, Serving: serving, Bottleneck: "node031: disk 113 MB/s", Limit: ring.LimitDisk}
	s.Left = time.Duration(float64(total-least) / rate * float64(time.Second))
	return s
}

// controller is what a controller may know.
func controller(now time.Time) *warm.Snapshot {
	s := &warm.Snapshot{At: now, Refused: `line 7: unknown key "nods"`, RefusedSince: now.Add(-12 * time.Minute)}
	for _, g := range []struct {
		name  string
		nodes int
	}{{"cpu", 640}, {"gpu", 128}, {"login", 4}} {
		status := warm.GroupStatus{Name: g.name, Nodes: g.nodes}
		for i := range g.nodes {
			status.Members = append(status.Members, fmt.Sprintf("%s%03d", g.name, i+1))
		}
		s.Groups = append(s.Groups, status)
	}
	s.Groups[0].Stale, s.Groups[0].Since = "sinfo: exit status 1", now.Add(-3*time.Minute)
	for k, ref := range []string{"ml/torch:25.10", "ml/torch:25.09", "hpc/openfoam:13", "base/debian:12"} {
		i := warm.ImageStatus{
			Ref: "docker://registry.example/" + ref, Platform: "linux/amd64", Name: "registry.example/" + ref, Digest: digest.FromString(ref), State: warm.ImageWarm,
			Groups: [][]string{{"gpu"}, {"gpu", "login"}, {"cpu", "login"}, {"cpu", "gpu", "login"}}[k], Found: now.Add(-3 * time.Minute), Next: now.Add(7 * time.Minute), LastWarm: now.Add(-2 * time.Minute),
		}
		for _, g := range s.Groups {
			for _, name := range i.Groups {
				if name != g.Name {
					continue
				}
				for m, member := range g.Members {
					n := warm.NodeStatus{Node: member, State: warm.NodeWarm}
					switch {
					case k == 0 && m%11 == 3:
						n.State = warm.NodeWarming
					case k == 2 && m == 17:
						n = warm.NodeStatus{Node: member, State: warm.NodeFull, Reason: "needs 12 GB, pins hold 80 GB", Next: now.Add(9 * time.Minute)}
					case k > 0 && m == 100:
						n = warm.NodeStatus{Node: member, State: warm.NodeAway, Reason: "no answer", Since: now.Add(-5 * time.Hour)}
					case k == 3 && m == 2:
						n = warm.NodeStatus{Node: member, State: warm.NodeFailed, Reason: hard, Next: now.Add(time.Minute)}
					}
					if n.State == warm.NodeWarm {
						i.Warm++
					}
					i.Nodes = append(i.Nodes, n)
				}
			}
		}
		s.Images = append(s.Images, i)
	}
	s.Images[0].State, s.Images[0].Rate, s.Images[0].Left = warm.ImageWarming, 420e6, 95*time.Second
	s.Images[2].State, s.Images[2].Reason = warm.ImageDegraded, "1 of 644 full, 1 away"
	s.Images[3].Stale, s.Images[3].Since = "registry.example: connection refused", now.Add(-time.Hour)
	return s
}
