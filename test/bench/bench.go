package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/dolly-img/dolly-img/test/netns"
)

// bench is what all scenarios share.
type bench struct {
	opts   *options
	dir    string // in memory
	binary string
	tracer *tracer // nil: system calls are not counted
}

// bed is the hosts of one scenario. Every node sees a directory of its own at out.
type bed struct {
	scenario
	*bench
	net   *netns.Net
	input string
	out   string
	own   []string // of each node
}

// sample is one run of one program.
type sample struct {
	Seconds  float64 `json:"seconds"`
	Report   float64 `json:"report"`   // seconds as the program itself says; 0: it does not
	CPU      float64 `json:"cpu"`      // seconds, user and system, of all processes
	Switches int64   `json:"switches"` // context switches of the middle node's process
	Sent     int64   `json:"sent"`     // by the server's interface
	Peak     int64   `json:"peak"`     // most anonymous memory of any node's process
}

// contestant is one program. start brings up its nodes.
type contestant struct {
	name  string
	start func(ctx context.Context, b *bed) (*running, error)
}

// running is a program whose nodes wait for what the server sends.
type running struct {
	nodes []*netns.Process // in the order of the chain
	once  func(context.Context) (*sample, error)
	stop  func()
}

var contestants = []contestant{
	{"plain", func(ctx context.Context, b *bed) (*running, error) {
		return startOurs(ctx, b, "plain")
	}},
	{"tls", func(ctx context.Context, b *bed) (*running, error) {
		return startOurs(ctx, b, "tls")
	}},
	{"bare", peer(bare("plain"))},
	{"bare-tls", peer(bare("tls"))},
	{"mbuffer", peer(mbuffer)},
	{"udpcast", peer(udpcast)},
}

func names() (all []string) {
	for _, c := range contestants {
		all = append(all, c.name)
	}
	return all
}

// result is a scenario with the samples of each program, one a round.
type result struct {
	scenario
	Samples map[string][]*sample `json:"samples"`
	Tracer  string               `json:"tracer,omitempty"` // what counted Calls
	Calls   map[string]calls     `json:"calls,omitempty"`  // of the middle node
}

// middle is the index of a node that receives and passes on, where there are several.
func (s scenario) middle() int { return (s.Nodes - 1) / 2 }

func newBench(ctx context.Context, o *options) (*bench, error) {
	memory := "/dev/shm"
	if _, err := os.Stat(memory); err != nil {
		memory = ""
	}
	dir, err := os.MkdirTemp(memory, "dolly-img-bench-")
	if err != nil {
		return nil, err
	}
	b := &bench{opts: o, dir: dir, binary: o.binary, tracer: newTracer(ctx)}
	if b.binary == "" {
		b.binary = filepath.Join(dir, "dolly-img")
		build := exec.CommandContext(ctx, "go", "build", "-o", b.binary, "github.com/dolly-img/dolly-img/cmd/dolly-img")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			b.close()
			return nil, fmt.Errorf("go build: %w", err)
		}
	}
	return b, nil
}

func (b *bench) close() { os.RemoveAll(b.dir) }

func (b *bench) measure(ctx context.Context, s scenario) (_ *result, err error) {
	net, err := netns.New(ctx, netns.Config{Nodes: s.Nodes, Rate: s.Rate})
	if err != nil {
		return nil, err
	}
	defer net.Close()
	if s.OneCore {
		restore, err := oneCore()
		if err != nil {
			return nil, err
		}
		defer restore()
	}
	dir, err := os.MkdirTemp(b.dir, "bed-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	bed := &bed{scenario: s, bench: b, net: net, input: filepath.Join(dir, "input"), out: filepath.Join(dir, "out")}
	if err := bed.prepare(dir); err != nil {
		return nil, err
	}
	r := &result{scenario: s, Samples: map[string][]*sample{}}
	for round := range b.opts.rounds {
		for _, c := range b.chosen() {
			got, err := bed.run(ctx, c, nil)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			r.Samples[c.name] = append(r.Samples[c.name], got)
			fmt.Fprintf(os.Stderr, "%d nodes to %s, round %d: %s %.2f s\n", s.Nodes, s.Sink, round+1, c.name, got.Seconds)
		}
	}
	// The time of a transfer over slow links does not depend on calls.
	if b.tracer != nil && s.Rate == 0 {
		r.Tracer, r.Calls = b.tracer.name, map[string]calls{}
		for _, c := range b.chosen() {
			counted := calls{}
			if _, err := bed.run(ctx, c, counted); err != nil {
				return nil, fmt.Errorf("%s, counting its calls: %w", c.name, err)
			}
			r.Calls[c.name] = counted
		}
	}
	return r, nil
}

func (b *bench) chosen() (all []contestant) {
	for _, c := range contestants {
		if b.opts.only == nil || slices.Contains(b.opts.only, c.name) {
			all = append(all, c)
		}
	}
	return all
}

func (b *bed) prepare(dir string) error {
	if err := os.Mkdir(b.out, 0o700); err != nil {
		return err
	}
	for _, h := range b.net.Nodes {
		own := filepath.Join(dir, h.Name)
		if err := os.Mkdir(own, 0o700); err != nil {
			return err
		}
		h.Mounts = []netns.Mount{netns.Bind(own, b.out)}
		b.own = append(b.own, own)
	}
	return random(b.input, b.Size)
}

// run measures c once. It puts the calls of the middle node into counted unless that is nil.
func (b *bed) run(ctx context.Context, c contestant, counted calls) (s *sample, err error) {
	// Ten times as long as it takes, and time to start.
	limit := time.Minute + time.Duration(b.Size/(10<<20))*time.Second
	if b.Rate > 0 {
		limit += time.Duration(10 * float64(b.Size) * 8 / float64(b.Rate) * float64(time.Second))
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not done in %v", limit))
	defer cancel()
	r, err := c.start(ctx, b)
	if err != nil {
		return nil, err
	}
	defer r.stop()
	endLoad, err := startLoad(ctx, b.Load, limit)
	if err != nil {
		return nil, err
	}
	defer endLoad()
	before, err := b.net.Server.Traffic(ctx)
	if err != nil {
		return nil, err
	}
	middle := r.nodes[b.middle()]
	idle, err := switches(middle)
	if err != nil {
		return nil, err
	}
	once := func() (err error) {
		s, err = r.once(ctx)
		return err
	}
	if counted == nil {
		err = once()
	} else {
		var all calls
		all, err = b.tracer.count(ctx, middle.Pid(), b.dir, once)
		maps.Copy(counted, all)
	}
	if err != nil {
		return nil, err
	}
	if s.Switches, err = switches(middle); err != nil {
		return nil, err
	}
	s.Switches -= idle
	after, err := b.net.Server.Traffic(ctx)
	if err != nil {
		return nil, err
	}
	s.Sent = after.Sent - before.Sent
	return s, b.checkOutput()
}

// file is where a node puts what it receives.
func (b *bed) file() string {
	if b.Sink == "tmpfs" {
		return filepath.Join(b.out, "file")
	}
	return "/dev/null"
}

// checkOutput demands the file on each node, if there shall be one, and removes it.
func (b *bed) checkOutput() error {
	if b.Sink != "tmpfs" {
		return nil
	}
	for i, own := range b.own {
		path := filepath.Join(own, "file")
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if info.Size() != b.Size {
			return fmt.Errorf("node %d has %d bytes of %d", i+1, info.Size(), b.Size)
		}
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return nil
}

// watch looks at the anonymous memory of processes until the returned function is
// called, which tells the most that any has had.
func watch(processes []*netns.Process) (peak func() int64) {
	stop, most := make(chan struct{}), make(chan int64)
	go func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for top := int64(0); ; {
			for _, p := range processes {
				if now, err := netns.AnonMemory(p.Pid()); err == nil {
					top = max(top, now)
				}
			}
			select {
			case <-tick.C:
			case <-stop:
				most <- top
				return
			}
		}
	}()
	return func() int64 { close(stop); return <-most }
}
