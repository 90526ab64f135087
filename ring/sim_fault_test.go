package ring

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/memnet"
	"github.com/dolly-img/dolly-img/ring/internal/simcheck"
	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// arm returns what fires when the fault's call comes; nil when it waits for none.
func (s *sim) arm(f fault) chan struct{} {
	if f.On == nil {
		return nil
	}
	a := &armed{*f.On, make(chan struct{})}
	s.armed = append(s.armed, a)
	return a.fire
}

// fault waits for its moment, does its harm and ends it.
func (s *sim) fault(over context.Context, f fault, wait chan struct{}) {
	if wait != nil {
		select {
		case <-wait:
		case <-over.Done():
			return
		}
	}
	if f.At > 0 {
		select {
		case <-time.After(time.Duration(f.At) * time.Microsecond):
		case <-over.Done():
			return
		}
	}
	node, peer := s.name(f.Node), s.name(f.Peer)
	ev := simcheck.Event{Kind: simcheck.Fault, What: f.What, Node: node, For: time.Duration(f.For) * time.Microsecond}
	undo := func() {}
	do := func() {}
	switch f.What {
	case simcheck.Kill, simcheck.Return:
		if s.kill(f.What, f.Node) && f.What == simcheck.Return {
			undo = func() { s.boot(s.nodes[f.Node]) }
		}
	case simcheck.Freeze, simcheck.Pause:
		do, undo = func() { s.net.Freeze(node) }, func() { s.net.Thaw(node) }
	case simcheck.CutServer:
		do, undo = s.cut(f, node, "server")
		ev.Note = f.Way
	case simcheck.CutLink, simcheck.Island:
		ev.Peer = peer
		if f.Peer == 0 || f.What == simcheck.Island {
			do, undo = s.cutOthers(f, node)
			ev.What = simcheck.Island
		} else {
			do, undo = s.cut(f, node, peer)
		}
		ev.Note = f.Way
	case simcheck.Stall:
		ev.Peer = peer
		do = func() { s.net.Stall(peer, node, wire.Preamble[0]) }
		undo = func() { s.net.Unstall(peer, node) }
	case simcheck.SlowLink:
		ev.Peer, ev.Rate = peer, f.Rate
		do = func() { s.net.Shape(peer, node, f.Rate, time.Duration(s.sc.Latency)*time.Microsecond) }
	case simcheck.SlowDisk:
		ev.Rate = f.Rate
		do = func() {
			for _, p := range s.procs(f.Node) {
				sink := s.storage(p)
				sink.mu.Lock()
				sink.slow = time.Duration(simFrame * int64(time.Second) / f.Rate)
				sink.mu.Unlock()
			}
		}
	case simcheck.Hang:
		do = func() {
			for _, p := range s.procs(f.Node) {
				sink := s.storage(p)
				sink.mu.Lock()
				sink.hung = time.Now().Add(ev.For)
				sink.mu.Unlock()
			}
		}
	case simcheck.Corrupt:
		ev.Peer, ev.Note = peer, f.How
		d := memnet.Damage{First: wire.Preamble[0], Offset: f.Rate, Times: 1}
		how, often := strings.CutSuffix(f.How, " often")
		if often {
			d.Every, d.Times = f.Rate, 0
		}
		switch how {
		case "drop":
			d.Drop = 100
		case "repeat":
			d.Repeat = 100
		}
		do = func() { s.net.Damage(peer, node, d) }
	case simcheck.ResetControl:
		do = func() { s.net.Reset("server", node, 0x00) }
	case simcheck.ResetLink:
		ev.Peer = peer
		do = func() { s.net.Reset(peer, node, wire.Preamble[0]) }
	case simcheck.Interrupt:
		do = s.send
	case simcheck.KillServer:
		do = func() { s.net.Kill("server") }
	}
	if f.What != simcheck.Kill && f.What != simcheck.Return {
		s.log(ev)
		do()
	}
	if f.For > 0 {
		select {
		case <-time.After(ev.For):
			undo()
		case <-over.Done():
		}
	}
}

func (s *sim) procs(node int) []*simProc {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.nodes[node].procs
}

// kill ends the newest process of a node as SIGKILL does: nothing of it is heard
// or written any more. It reports whether there was one.
func (s *sim) kill(what string, node int) bool {
	all := s.procs(node)
	if len(all) == 0 {
		return false // it is late
	}
	p := all[len(all)-1]
	sink := s.storage(p)
	sink.mu.Lock()
	if sink.dead {
		sink.mu.Unlock()
		return false
	}
	sink.dead = true
	s.log(simcheck.Event{Kind: simcheck.Fault, What: simcheck.Kill, Node: s.name(node), Proc: sink.proc})
	if what != simcheck.Kill {
		s.log(simcheck.Event{Kind: simcheck.Fault, What: what, Node: s.name(node)})
	}
	sink.mu.Unlock()
	s.net.Kill(s.name(node))
	p.node.mu.Lock()
	defer p.node.mu.Unlock()
	p.node.closing = true
	for _, t := range p.node.sessions {
		go t.kill()
	}
	return true
}

func (s *sim) cut(f fault, node, peer string) (do, undo func()) {
	ways := [][2]string{{peer, node}, {node, peer}}
	switch f.Way {
	case "in":
		ways = ways[:1]
	case "out":
		ways = ways[1:]
	}
	return func() {
			for _, w := range ways {
				s.net.Cut(w[0], w[1])
			}
		}, func() {
			for _, w := range ways {
				s.net.Heal(w[0], w[1])
			}
		}
}

// cutOthers cuts a node off from all other nodes, not from the server.
func (s *sim) cutOthers(f fault, node string) (do, undo func()) {
	var dos, undos []func()
	for _, n := range s.nodes[1:] {
		if n.name != node {
			d, u := s.cut(f, node, n.name)
			dos, undos = append(dos, d), append(undos, u)
		}
	}
	all := func(fs []func()) func() {
		return func() {
			for _, f := range fs {
				f()
			}
		}
	}
	return all(dos), all(undos)
}

func (s *sim) testLog() *slog.Logger {
	if *simSeed == 0 {
		return nil
	}
	return slog.New(slog.NewTextHandler(s.t.Output(), nil))
}
