package ring

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/coordinator"
	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// Bounds on what happens at the same moment: connects, which a dead node holds
// for timings.connect, and handshakes, which cost processor time.
const (
	maxDials      = 1024
	maxHandshakes = 64
)

// caller opens control connections to nodes, so many at a time.
type caller struct {
	nodes    []Peer
	software string
	net      transport
	// secure makes the transport of a control connection to a node. It is TLS, unless a simulation that
	// cannot afford it says otherwise.
	secure func(ctx context.Context, raw net.Conn, node string) (net.Conn, error)
	id     wire.ID // of the transfer they are for

	dials, handshakes chan struct{}
}

func newCaller(cfg Config) caller {
	c := caller{
		nodes: cfg.Nodes, software: cfg.Software, net: tcp,
		dials: make(chan struct{}, maxDials), handshakes: make(chan struct{}, maxHandshakes),
	}
	c.secure = func(ctx context.Context, raw net.Conn, node string) (net.Conn, error) {
		conn := tls.Client(raw, cfg.TLS(node))
		return conn, conn.HandshakeContext(ctx)
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

// greet opens a control connection and exchanges HELLO and WELCOME.
func (c *caller) greet(work context.Context, p Peer, resume bool, limit time.Duration) (*control, *wire.Welcome, error) {
	ctx, cancel := context.WithTimeout(work, limit)
	defer cancel()
	if !take(ctx, c.dials) {
		return nil, nil, errors.New("too many nodes that do not answer are being dialled")
	}
	raw, err := c.net.dialAny(ctx, p.Addrs)
	<-c.dials
	if err != nil {
		return nil, nil, unconnected(err)
	}
	addr, greeted := raw.RemoteAddr().String(), time.Now()
	if !take(ctx, c.handshakes) {
		raw.Close()
		return nil, nil, errors.New("too many nodes that do not answer are being greeted")
	}
	defer func() { <-c.handshakes }()
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	conn, err := c.secure(ctx, raw, p.Name)
	if err != nil {
		stop()
		raw.Close()
		return nil, nil, ungreeted(ended(ctx, err), addr, time.Since(greeted))
	}
	ctrl := newControl(conn)
	ctrl.send(&wire.Hello{Min: ProtocolMin, Max: ProtocolMax, Transfer: c.id, Node: p.Name, Resume: resume})
	m, err := ctrl.read(limit)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	w, ok := m.(*wire.Welcome)
	other := misgreeted(w, err, c.software)
	switch {
	case other != nil:
		err = other
	case err != nil:
		err = ungreeted(ended(ctx, err), addr, time.Since(greeted))
	case !ok:
		err = fmt.Errorf("answers %T to the greeting", m)
	default:
		ctrl.version, ctrl.software = w.Version, w.Software
		return ctrl, w, nil
	}
	ctrl.finish()
	return nil, nil, err
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

// attach hands a greeted connection to run and reads it to its end.
func (s *sender) attach(i int, ctrl *control, ev any) {
	s.post(connected{i, ctrl, ev})
	s.work.Go(func() { ctrl.ping() })
	s.work.Go(func() {
		for {
			m, err := ctrl.read(timings.silence)
			if err == nil {
				if _, ok := m.(*wire.Pong); ok {
					continue
				}
				if ev, ok := coordinator.Heard(i, m); ok {
					s.post(ev)
					continue
				}
				err = fmt.Errorf("unexpected message %T", m)
			}
			ctrl.conn.Close()
			if bad := unread(err, ctrl.version, ctrl.software, s.software); bad != nil {
				s.post(lost{ctrl, i, coordinator.EvFail{Node: i, Code: wire.CodeVersion, Reason: wire.Printable(bad.Error())}})
				return
			}
			reason := "connection lost"
			if isTimeout(err) {
				reason = fmt.Sprintf("silent for %v", timings.silence)
			}
			s.post(lost{ctrl, i, coordinator.EvControlLost{Node: i, Silent: isTimeout(err), Reason: reason}})
			return
		}
	})
}
