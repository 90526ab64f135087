package ring

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/coordinator"
	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// Bounds on what happens at the same moment: connects, which a dead node holds
// for timings.connect, and handshakes for which the processor works.
const (
	maxDials      = 1024
	maxHandshakes = 64
)

// caller opens control connections to nodes, so many at a time.
type caller struct {
	nodes    []Peer
	software string
	least    int // the oldest version of the protocol that will do
	net      transport
	// secure makes the transport of a control connection to a node. It is TLS, unless a simulation that
	// cannot afford it says otherwise.
	secure func(ctx context.Context, raw net.Conn, node string) (net.Conn, error)
	id     wire.ID // of the transfer they are for

	dials, handshakes chan struct{}
	memory            controlMemory
}

func newCaller(cfg Config) caller {
	c := caller{
		nodes: cfg.Nodes, software: cfg.Software, least: ProtocolMin, net: tcp,
		dials: make(chan struct{}, maxDials), handshakes: make(chan struct{}, maxHandshakes), memory: serverMemory(),
	}
	c.secure = func(ctx context.Context, raw net.Conn, node string) (net.Conn, error) {
		conn := tls.Client(raw, cfg.TLS(node))
		return conn, conn.HandshakeContext(ctx)
	}
	if cfg.Confirm != nil {
		c.least = wire.TargetSince
	}
	rand.Read(c.id[:])
	return c
}

// dialAll opens the control star.
func (s *sender) dialAll(work context.Context) {
	until := time.Now().Add(s.cfg.Wait)
	// Why a node does not answer is known before the start, which does not wait for it.
	limit := timings.startLimit - timings.tickEvery
	for i, p := range s.cfg.Nodes {
		s.work.Go(func() {
			if p.Err != nil {
				s.post(noContact(i+1, coordinator.Unreachable, true, Cause{Fault: FaultName, Text: p.Err.Error()}))
				return
			}
			for told := false; ; told = true {
				ctrl, w, err := s.greet(work, p, false, limit)
				switch {
				case err == nil:
					s.attach(i+1, ctrl, welcomed(i+1, ctrl, w))
					return
				case isRefusal(err):
					s.post(noContact(i+1, coordinator.Refused, true, causeOf(err)))
					return
				case !time.Now().Before(until):
					s.post(noContact(i+1, coordinator.Unreachable, false, causeOf(err)))
					return
				}
				if !told {
					s.post(coordinator.EvAway{Node: i + 1, Cause: innerCause(causeOf(err)).In(coordinator.KindContact, fmt.Sprintf("is tried for %v: ", s.cfg.Wait))})
				}
				if !s.pause(min(timings.askEvery, time.Until(until))) {
					return
				}
			}
		})
	}
}

// redial dials a node that was lost, or never answered, until it does.
func (s *sender) redial(work context.Context, i int) {
	for s.pause(timings.redialFor) {
		ctrl, w, err := s.greet(work, s.cfg.Nodes[i-1], true, timings.redialFor)
		if err == nil {
			s.attach(i, ctrl, welcomed(i, ctrl, w))
			return
		}
	}
}

func welcomed(i int, ctrl *control, w *wire.Welcome) coordinator.EvWelcome {
	return coordinator.EvWelcome{
		Node: i, Instance: w.Instance, State: wire.Printable(w.State), Reason: wire.Printable(w.Reason),
		Addr: ctrl.conn.RemoteAddr().String(), Version: w.Version, NoSHA: w.NoSHA,
	}
}

func noContact(i int, state coordinator.State, lasting bool, why Cause) coordinator.EvNoContact {
	return coordinator.EvNoContact{Node: i, State: state, Lasting: lasting, Cause: innerCause(why)}
}

// pause waits; false says that the transfer is over.
func (s *sender) pause(d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-s.done:
		return false
	}
}

// resume asks a node whose control connection broke for its state.
func (s *sender) resume(work context.Context, i int, committed bool) {
	limit := timings.resumeFor
	if committed {
		limit = timings.confirmFor
	}
	until := time.Now().Add(limit)
	for {
		ctrl, w, err := s.greet(work, s.cfg.Nodes[i-1], true, min(time.Until(until), timings.startLimit))
		if err == nil {
			s.attach(i, ctrl, coordinator.EvResumed{
				Node: i, Committed: committed, Instance: w.Instance, State: wire.Printable(w.State), Digest: wire.Printable(w.Digest),
				Cause: coordinator.Said(wire.CodeNone, wire.Printable(w.Reason)),
			})
			return
		}
		if !committed || !time.Now().Add(timings.askEvery).Before(until) {
			s.post(coordinator.EvResumed{Node: i, Committed: committed, Cause: innerCause(causeOf(err))})
			return
		}
		if !s.pause(timings.askEvery) {
			return
		}
	}
}

// greeted is a control connection on which HELLO and WELCOME were exchanged.
type greeted struct {
	ctrl    *control
	welcome *wire.Welcome
}

func (g greeted) Close() error { g.ctrl.finish(); return nil }

// greet opens a control connection to a node, at any of its addresses, and exchanges HELLO and WELCOME.
func (c *caller) greet(work context.Context, p Peer, resume bool, limit time.Duration) (*control, *wire.Welcome, error) {
	ctx, cancel := context.WithTimeout(work, limit)
	defer cancel()
	hello := &wire.Hello{Min: c.least, Max: ProtocolMax, Transfer: c.id, Node: p.Name, Resume: resume}
	// One connection says HELLO at a time, because one with resume takes the transfer over from the one before. Who is
	// proven and does not answer leaves time for the other addresses.
	turn := make(chan struct{}, 1)
	limit /= time.Duration(max(1, len(p.Addrs)))
	g, errs := firstOf(ctx, p.Addrs, func(ctx context.Context, addr string) (greeted, error) {
		return c.greetAt(ctx, addr, hello, turn, limit)
	})
	if errs != nil {
		return nil, nil, ungreetedAt(errs)
	}
	return g.ctrl, g.welcome, nil
}

// greetAt does that at one address. If it succeeds, it keeps the turn.
func (c *caller) greetAt(ctx context.Context, addr string, hello *wire.Hello, turn chan struct{}, limit time.Duration) (g greeted, err error) {
	if !take(ctx, c.dials) {
		return g, &noAnswer{because("too many nodes that do not answer are being dialled")}
	}
	raw, err := c.net.connect(ctx, addr)
	<-c.dials
	if err != nil {
		return g, unconnected(err)
	}
	begun := time.Now()
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	failed := func(err error) error {
		stop()
		raw.Close()
		return ungreeted(ended(ctx, err), raw.RemoteAddr().String(), time.Since(begun))
	}
	place := &placed{Conn: raw, ctx: ctx, places: c.handshakes}
	if !place.enter() {
		return g, failed(&noAnswer{because("this server is overloaded: it cannot greet so many nodes in time")})
	}
	defer place.end()
	conn, err := c.secure(ctx, place, hello.Node)
	if err == nil && !take(ctx, turn) {
		err = ctx.Err()
	}
	if err != nil {
		return g, failed(err)
	}
	ctrl := newControl(conn, c.memory)
	w, err := ctrl.greet(hello, limit, c.software)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		<-turn
		ctrl.finish()
		return g, failed(err)
	}
	return greeted{ctrl, w}, nil
}

// greet says HELLO and returns the WELCOME.
func (c *control) greet(hello *wire.Hello, limit time.Duration, software string) (*wire.Welcome, error) {
	c.send(hello)
	m, err := c.read(limit)
	w, ok := m.(*wire.Welcome)
	if other := misgreeted(w, err, hello.Min, software); other != nil {
		return nil, other
	}
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fmt.Errorf("answers %T to the greeting", m)
	}
	c.version, c.software = w.Version, w.Software
	return w, nil
}

// placed is a connection in whose greeting the processor works, for which it has one of some places. It gives the place back when
// the peer lets it wait, and takes one again when the peer has answered: silent nodes must not hold up those that answer. One goroutine
// reads it until the end of the greeting.
type placed struct {
	net.Conn
	ctx    context.Context // of the greeting
	places chan struct{}
	held   bool
	ended  atomic.Bool
}

// enter waits for a place, but not longer than the greeting has time.
func (p *placed) enter() bool {
	p.held = take(p.ctx, p.places)
	return p.held
}

// end says that the greeting is over.
func (p *placed) end() {
	p.ended.Store(true)
	if p.held {
		<-p.places
	}
}

func (p *placed) Read(b []byte) (int, error) {
	if p.ended.Load() || !p.held {
		return p.Conn.Read(b)
	}
	quiet := time.AfterFunc(timings.hush, func() { <-p.places })
	n, err := p.Conn.Read(b)
	if !quiet.Stop() && !p.enter() && err == nil {
		return 0, context.Cause(p.ctx)
	}
	return n, err
}

// take waits for a place, but not longer than ctx.
func take(ctx context.Context, places chan struct{}) bool {
	select {
	case places <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// heard brings what a node said over a control connection, or that this ended. If another connection has replaced it since,
// this no longer counts: a report of what a node had before it began anew would be taken for what it has now.
type heard struct {
	ctrl *control
	node int
	ev   any
}

// hear returns what the coordinator has to know of what a node said, or nil.
func (s *sender) hear(h heard) (ev any) {
	if s.conns[h.node] != h.ctrl {
		return nil
	}
	switch ev := h.ev.(type) {
	case coordinator.EvFallback:
		ev.Unsent = !s.marks.log.has(ev.Msg.Blob, ev.Msg.Offset)
		return ev
	case *wire.Good:
		if !s.chain.BeforeStart(h.node) {
			s.marks.said(h.node, ev)
			s.sendMarks(h.node)
		}
		return nil
	}
	return h.ev
}

// attach hands a greeted connection to run and reads it to its end.
func (s *sender) attach(i int, ctrl *control, ev any) {
	s.post(connected{i, ctrl, ev})
	s.work.Go(func() { ctrl.ping() })
	s.work.Go(func() {
		for {
			m, err := ctrl.read(timings.silence)
			if err == nil {
				if _, ok := m.(*wire.Pong); ok {
					for _, link := range ctrl.proof.pong() {
						s.post(heard{ctrl, i, coordinator.EvUndialled{Node: i, Link: link}})
					}
					continue
				}
				if _, ok := m.(*wire.Report); ok {
					ctrl.proof.report()
				}
				if good, ok := m.(*wire.Good); ok {
					s.post(heard{ctrl, i, good})
					continue
				}
				if ev, ok := coordinator.Heard(i, m); ok {
					s.post(heard{ctrl, i, ev})
					continue
				}
				err = fmt.Errorf("unexpected message %T", m)
			}
			ctrl.conn.Close()
			if bad := unread(err, ctrl.version, ctrl.software, s.software); bad != nil {
				s.post(heard{ctrl, i, coordinator.EvFail{Node: i, Code: wire.CodeVersion, Reason: wire.Printable(bad.Error())}})
				return
			}
			reason := "connection lost"
			if isTimeout(err) {
				reason = fmt.Sprintf("silent for %v", timings.silence)
			}
			s.post(heard{ctrl, i, coordinator.EvControlLost{Node: i, Silent: isTimeout(err), Reason: reason}})
			return
		}
	})
}
