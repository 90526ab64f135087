package ring

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"maps"
	"math/rand/v2"
	"net"
	"slices"

	"github.com/dolly-img/dolly-img/ring/internal/simcheck"
)

// boot starts a process of a node, with what the one before made durable.
func (s *sim) boot(n *simNode) {
	p := &simProc{done: make(chan struct{})}
	p.sink = &simSink{sim: s, node: n, proc: n.sinks, full: -1, parts: make([]simPart, len(s.blobs))}
	n.sinks++
	blind := slices.Contains(s.sc.Blind, n.index) // it could not pass on what it has
	if !blind {
		s.stock(n, p.sink)
	}
	refuse, rogue, lies := s.afflict(n, p.sink)
	node, err := NewNode(NodeConfig{
		TLS:     &tls.Config{},
		DataTLS: func(string) *tls.Config { return nil },
		Client:  clientOf,
		Accept: func(context.Context, Request) (Sink, error) {
			if refuse {
				return nil, errors.New("not here")
			}
			sink := s.reopen(p)
			if blind {
				return blindSink{sink, sink, sink}, nil
			}
			return sink, nil
		},
		Stock:      n.stock,
		AllowPlain: true,
		Transfers:  1,
		Log:        s.testLog(),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	bareControl(node)
	node.pool = s.pool()
	host := s.net.Host(n.name)
	node.net.dial = func(ctx context.Context, addr string) (net.Conn, error) {
		c, err := host.Dial(ctx, addr)
		if err == nil && n.willLie(s) {
			c = &liar{Conn: c, sim: s, node: n}
		}
		if err == nil && lies != nil && lies.is("sends-nothing") {
			c = &mute{Conn: c, liar: lies}
		}
		return s.tapped(n.name, addr, c), err
	}
	p.node = node
	s.mu.Lock()
	n.procs = append(n.procs, p)
	s.mu.Unlock()
	l := net.Listener(s.net.Listen(n.name + ":1"))
	if rogue {
		l = &rogueListener{Listener: l, rand: rand.New(rand.NewPCG(s.sc.Seed, uint64(n.index))), left: 30}
	}
	if lies != nil {
		l = &liarListener{l, lies}
	}
	go func() {
		defer close(p.done)
		node.Serve(l)
	}()
}

// stock puts into a sink what the process before made durable, or, for the first process, what the scenario says.
func (s *sim) stock(n *simNode, sink *simSink) {
	for i := range s.blobs {
		held, part := slices.Contains(s.sc.Held, [2]int{n.index, i}), simPart{ahead: s.ahead(n, i)}
		if len(n.procs) > 0 {
			old := s.storage(n.procs[len(n.procs)-1])
			old.mu.Lock()
			part = old.parts[i]
			part.own, part.ahead = bytes.Clone(part.own), maps.Clone(part.ahead)
			held = part.durable
			old.mu.Unlock()
		}
		if held {
			part = simPart{n: int64(len(s.blobs[i].data)), durable: true}
		}
		sink.parts[i] = part
	}
	for _, k := range s.sc.Parts {
		if k[0] == n.index && len(n.procs) == 0 {
			part := sink.parts[k[1]]
			part.n = int64(k[2])
			if k[3] != 0 && k[2] > 0 {
				part.own = bytes.Clone(s.blobs[k[1]].data[:k[2]])
				part.own[k[2]/2] ^= 1
			}
			sink.parts[k[1]] = part
		}
	}
}

// afflict gives a node and its sink the faults that they have from the start on.
func (s *sim) afflict(n *simNode, sink *simSink) (refuse, rogue bool, lies *liarNode) {
	for _, f := range s.sc.Faults {
		if f.Node != n.index {
			continue
		}
		switch f.What {
		case simcheck.Refuse:
			refuse = true
		case simcheck.Rogue:
			rogue = true
		case simcheck.Liar:
			if lies = newLiar(s, f); lies.is("changes-bytes") {
				n.lies, n.how, n.every = f.Rate, "flip", f.Rate+1
			} else if lies.is("sends-zeros") {
				n.lies, n.how, n.every = f.Rate, "zero", f.Rate+1
			}
		case simcheck.Full:
			if f.How == "write" {
				sink.full = f.Rate
			} else {
				sink.what = f.How
			}
		case simcheck.Lie:
			n.lies, n.how = f.Rate, "flip"
		case simcheck.Rot:
			n.rot = f.Rate
		case simcheck.Stutter:
			n.lies, n.how, n.every = f.Rate, f.How, f.Rate
		}
	}
	return refuse, rogue, lies
}

// reopen returns the storage of a process: anew, when it was asked and closed before.
func (s *sim) reopen(p *simProc) *simSink {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := p.sink
	old.mu.Lock()
	defer old.mu.Unlock()
	if old.closed {
		p.sink = &simSink{sim: s, node: old.node, proc: old.node.sinks, slow: old.slow, hung: old.hung,
			full: old.full, what: old.what, dead: old.dead, written: old.written, parts: slices.Clone(old.parts)}
		old.node.sinks++
		for i := range p.sink.parts {
			p.sink.parts[i].own, p.sink.parts[i].ahead = bytes.Clone(old.parts[i].own), maps.Clone(old.parts[i].ahead)
		}
	}
	return p.sink
}

// storage is the newest of a process.
func (s *sim) storage(p *simProc) *simSink {
	s.mu.Lock()
	defer s.mu.Unlock()
	return p.sink
}
