package ring

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/memnet"
	"github.com/dolly-img/dolly-img/ring/internal/relay"
	"github.com/dolly-img/dolly-img/ring/internal/simcheck"
	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/dolly-img/dolly-img/ring/leaf"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// sim is one run of a scenario, inside a bubble.
type sim struct {
	t     *testing.T
	sc    simCase
	sizes relay.Sizes
	net   memnet.Net
	start time.Time
	blobs []simBlob
	nodes []*simNode // [0] is nil
	src   *simSource
	send  context.CancelFunc
	tap   func(from, to string, conn net.Conn) net.Conn // of what is dialled; nil: as it is

	mu     sync.Mutex
	events []simcheck.Event
	writes map[string]int // the last write of a node, to go on with
	armed  []*armed
	liars  map[int]*liarNode // by the number of the node
}

// simNode is a requested node; its processes come and go.
type simNode struct {
	name  string
	index int
	procs []*simProc
	sinks int    // made so far
	stock Stock  // nil: it is not asked
	rot   int64  // this byte of every blob is read back wrong; -1: none
	lies  int64  // from this byte on it forwards others; -1: never
	how   string // flip, zero, skip, repeat, reorder or fin; all but the first more than once
	every int64
}

type simProc struct {
	node *Node
	sink *simSink
	done chan struct{}
}

// armed is a fault that waits for its call.
type armed struct {
	call
	fire chan struct{}
}

func newSim(t *testing.T, sc simCase, sizes relay.Sizes) *sim {
	s := &sim{t: t, sc: sc, sizes: sizes, start: time.Now(), writes: map[string]int{}, liars: map[int]*liarNode{}, nodes: []*simNode{nil}}
	s.net.Buffer = sc.Buffer
	var total int64
	for _, b := range sc.Blobs {
		total += b.Size
	}
	all := random(sc.Seed, int(total))
	for i, b := range sc.Blobs {
		d := v1.Descriptor{MediaType: "application/octet-stream", Size: b.Size, Annotations: map[string]string{blobKey: fmt.Sprint(i)}}
		blob := simBlob{data: all[:b.Size:b.Size], sum: shaOf(all[:b.Size])}
		if !b.Digest && !b.Stream && sc.inLeaves() {
			d.MediaType = leaf.MediaType
			if sc.Seed%4 == 2 {
				makeSparse(blob.data, sc.Seed+uint64(i))
			}
			blob.sum = leavesOf(blob.data)
		}
		all = all[b.Size:]
		// Two blobs of one digest are refused, and two empty ones have one.
		if b.Digest && b.Size > 16 {
			d.Digest = blob.sum
		}
		if b.Stream {
			d.Size = -1
		}
		blob.desc = d
		s.blobs = append(s.blobs, blob)
	}
	s.src = &simSource{sim: s, fail: sc.Source, at: total / 2}
	for i := 1; i <= sc.Nodes; i++ {
		name := fmt.Sprintf("n%02d", i)
		s.nodes = append(s.nodes, &simNode{name: name, index: i, lies: -1, rot: -1, stock: sc.stock(name)})
	}
	return s
}

func (s *sim) log(ev simcheck.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ev.T = time.Since(s.start)
	last, going := s.writes[ev.Node]
	if ev.Kind == simcheck.Write && going {
		if w := &s.events[last]; w.Blob == ev.Blob && w.Proc == ev.Proc && w.Bad == ev.Bad && w.Off+w.N == ev.Off {
			w.N += ev.N
			return
		}
	}
	delete(s.writes, ev.Node)
	if ev.Kind == simcheck.Write {
		s.writes[ev.Node] = len(s.events)
	}
	s.events = append(s.events, ev)
}

// happens lets faults know of a call.
func (s *sim) happens(node, what string, _ int, _ int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.armed {
		if a.Call == what && (a.Node == 0) == (node == "") && (a.Node == 0 || s.nodes[a.Node].name == node) {
			if a.Nth--; a.Nth == 0 {
				close(a.fire)
			}
		}
	}
}

func (s *sim) fsync() time.Duration { return time.Duration(s.sc.Fsync) * time.Microsecond }

// pool is the window memory of one process. No process waits for a processor: the kernel's word on that is of another
// time than the simulation's, and to ask for it took half of what a run costs.
func (s *sim) pool() *relay.Pool {
	p := relay.NewPool(s.window(), s.sizes)
	p.RunDelay = func(time.Time) time.Duration { return 0 }
	return p
}

func (s *sim) window() int { return max(s.sc.Window, s.sizes.MinWindow()) }

func (s *sim) tapped(from, addr string, c net.Conn) net.Conn {
	if s.tap == nil || c == nil {
		return c
	}
	to, _, _ := strings.Cut(addr, ":")
	return s.tap(from, to, c)
}

// allHeld reports whether a node needs nothing.
func (s *sim) allHeld(node int) bool {
	for b := range s.blobs {
		if !slices.Contains(s.sc.Held, [2]int{node, b}) {
			return false
		}
	}
	return true
}

func (s *sim) name(i int) string {
	if i == 0 {
		return "server"
	}
	return s.nodes[i].name
}

// machine is the node that a name leads to.
func (s *sim) machine(n *simNode) string {
	for _, f := range s.sc.Faults {
		if f.What == simcheck.Twin && f.Node == n.index {
			return s.name(f.Peer)
		}
	}
	return n.name
}

// peer is the other node that a static fault is about; "" where there is none.
func (s *sim) peer(f fault) string {
	if f.What == simcheck.Twin || f.What == simcheck.Liar && f.Peer > 0 {
		return s.name(f.Peer)
	}
	return ""
}

// config is what the server is asked to do, and the head of the history, which says the same.
func (s *sim) config() (Config, simcheck.Event) {
	head := simcheck.Event{Kind: simcheck.Run, For: time.Duration(s.sc.Wait) * time.Microsecond, Rate: simFrame * 1e6 / int64(s.sc.Pace)}
	if s.sc.Rate > 0 {
		head.Rate = min(head.Rate, s.sc.Rate)
	}
	for _, b := range s.blobs {
		head.Blobs = append(head.Blobs, simcheck.Blob{Sum: b.sum.String(), Size: int64(len(b.data))})
	}
	head.Direct = s.sc.Direct
	for what, ok := range supported {
		if !ok {
			head.Weak = append(head.Weak, what)
		}
	}
	slices.Sort(head.Weak)
	cfg := Config{Source: s.src, TLS: func(string) *tls.Config { return nil }, Plain: true, Wait: head.For, Retries: s.sc.Retries, MaxDirect: s.sc.Direct, Log: s.testLog(), Update: s.sc.Update}
	if s.sc.Patient {
		cfg.Straggler = Wait
	}
	for _, n := range s.nodes[1:] {
		head.Nodes = append(head.Nodes, n.name)
		cfg.Nodes = append(cfg.Nodes, Peer{Name: n.name, Addrs: []string{s.machine(n) + ":1"}})
	}
	if *simSeed != 0 || s.sc.Cause != "" && testing.Verbose() {
		cfg.OnEvent = func(ev Event) {
			if ev.Kind != EventProgress {
				s.t.Logf("%v %s %s%s %s %s %v", time.Since(s.start), ev.Kind, ev.Node, ev.Link, ev.State, ev.Reason, ev.Nodes)
			}
		}
	}
	return cfg, head
}

// bootAll shapes the network and starts all nodes; those that are late in the scenario start later.
func (s *sim) bootAll() {
	if s.sc.Rate > 0 || s.sc.Latency > 0 {
		for i := range s.nodes {
			for j := range s.nodes {
				if i != j {
					s.net.Shape(s.name(i), s.name(j), s.sc.Rate, time.Duration(s.sc.Latency)*time.Microsecond)
				}
			}
		}
	}
	for _, n := range s.nodes[1:] {
		if s.machine(n) != n.name {
			continue
		}
		i := slices.IndexFunc(s.sc.Faults, func(f fault) bool { return f.Node == n.index && f.What == simcheck.Late })
		if i < 0 {
			s.boot(n)
			continue
		}
		go func() {
			time.Sleep(time.Duration(s.sc.Faults[i].For) * time.Microsecond)
			s.boot(n)
		}()
	}
}

// run runs the scenario and returns its history.
func (s *sim) run() []simcheck.Event {
	cfg, head := s.config()
	s.log(head)
	s.bootAll()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s.send = cancel
	over, stop := context.WithCancel(context.Background())
	var faults sync.WaitGroup
	if s.sc.Source != "" {
		s.log(simcheck.Event{Kind: simcheck.SourceBad, Note: s.sc.Source})
	}
	for _, f := range s.sc.Faults {
		if f.static() {
			s.log(simcheck.Event{Kind: simcheck.Fault, What: f.What, Node: s.name(f.Node), Peer: s.peer(f), Note: f.How, For: time.Duration(f.For) * time.Microsecond})
			continue
		}
		wait := s.arm(f)
		faults.Go(func() { s.fault(over, f, wait) })
	}
	var snaps []NodesSnapshot
	if s.sc.Seed%4 == 1 {
		cfg.OnNodes = func(snap NodesSnapshot) { snaps = append(snaps, snap) }
	}
	sender, err := newSender(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	callBare(sender)
	sender.net.dial = func(ctx context.Context, addr string) (net.Conn, error) {
		c, err := s.net.Host("server").Dial(ctx, addr)
		// In one simulation of three, every second node is of an older version.
		elderly := slices.IndexFunc(s.nodes, func(n *simNode) bool { return n != nil && n.name+":1" == addr })%2 == 1
		if err == nil && s.sc.Seed%3 == 0 && elderly {
			c = &elder{Conn: c, most: 3}
		} else if err == nil && s.sc.Seed%5 == 0 && elderly { // and in one of five it is of one that knows leaves but no ZERO
			c = &elder{Conn: c, most: wire.LeavesSince}
		}
		return s.tapped("server", addr, c), err
	}
	sender.pool = s.pool()
	sender.marks.page = 3
	// A run that does not end by itself has no end in its history.
	hung := false
	watch := time.AfterFunc(s.longest(), func() {
		hung = true
		cancel()
	})
	harder := time.AfterFunc(s.longest()+time.Minute, func() { s.net.Kill("server") })
	enough := s.ask(over, &faults)
	report, err := sender.run(ctx)
	enough()
	watch.Stop()
	harder.Stop()
	if len(snaps) > 0 {
		checkSnapshots(s.t, snaps, report)
	}
	for _, row := range report.Nodes {
		s.log(simcheck.Event{Kind: simcheck.Row, Node: row.Node, State: string(row.State), Sum: row.Digest, Code: string(row.Code), Note: row.Reason})
	}
	if !hung {
		s.log(simcheck.Event{Kind: simcheck.End, Exit: report.Status(err, 0), Note: fmt.Sprint(err)})
	}
	// Nodes that lost the server keep the transfer for a while.
	time.Sleep(timings.silence + timings.orphanFor + 5*time.Second)
	stop()
	faults.Wait()
	s.log(simcheck.Event{Kind: simcheck.Over})
	s.mu.Lock()
	events := s.events
	s.events = nil // what comes later is of the shutdown
	s.mu.Unlock()
	s.shutdown()
	return events
}

// shutdown ends all nodes at once.
func (s *sim) shutdown() {
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	for _, n := range s.nodes[1:] {
		for _, p := range n.procs {
			p.node.Shutdown(gone)
			<-p.done
		}
	}
}
