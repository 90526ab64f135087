package ring

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// How a sender has the caches of nodes tended.

// TendReply is what became of work on the cache of one node.
type TendReply struct {
	// Node is the Name of the Peer.
	Node string
	// State is "" if the work is done, else Unreachable, Refused or Failed, and then Cause says why.
	State State
	Cause Cause
	// Tended is what was done.
	Tended
}

// TendProgress is how far the work on the cache of one node is.
type TendProgress struct {
	Node string
	// Done is how many bytes were read, of All. 0 is unknown.
	Done, All int64
}

// Tend has the caches of all nodes of cfg tended, beside each other, and returns what became of that in the order of cfg.Nodes. It
// disturbs no transfer. It takes as long as the slowest node gets on: one that says nothing for 5 s, or does not get on for 60 s, is not
// waited for. When ctx ends, the nodes stop. Of cfg only Nodes, TLS and Software are used. A call of got, which may be nil, comes
// about once a second from each node that gets on, and several may come at once. The error says that cfg or w cannot be used.
func Tend(ctx context.Context, cfg Config, w Work, got func(TendProgress)) ([]TendReply, error) {
	c, err := newAsker(cfg)
	if err != nil {
		return nil, err
	}
	return c.tendAll(ctx, w, got)
}

func (c *caller) tendAll(ctx context.Context, w Work, got func(TendProgress)) ([]TendReply, error) {
	b, err := wire.Encode(w.message())
	if err = errors.Join(w.check(), err); err != nil {
		return nil, fmt.Errorf("ring: %s: %w", w.Do, err)
	}
	if got == nil {
		got = func(TendProgress) {}
	}
	replies := make([]TendReply, len(c.nodes))
	c.beside(ctx, func(i int, why Cause) {
		replies[i] = TendReply{Node: c.nodes[i].Name, State: Unreachable, Cause: why}
	}, func(i int, next func()) {
		replies[i].Node = c.nodes[i].Name
		c.tend(ctx, c.nodes[i], b, &replies[i], next, got)
	})
	return replies, nil
}

// tend has one node tend its cache. b is what it is told. greeted is called when it was greeted, since what it does then takes nothing of this side.
func (c *caller) tend(ctx context.Context, p Peer, b []byte, r *TendReply, greeted func(), got func(TendProgress)) {
	ctrl, w, err := c.greet(ctx, p, false, timings.startLimit)
	greeted()
	if err != nil {
		if r.State, r.Cause = Unreachable, causeOf(err); isRefusal(err) {
			r.State = Refused
		}
		return
	}
	defer func() {
		ctrl.finish()
		<-ctrl.done
	}()
	if w.Version < wire.TendsSince {
		r.State, r.Cause = Refused, tooOld(w, wire.TendsSince)
		return
	}
	defer context.AfterFunc(ctx, func() { ctrl.conn.Close() })()
	ctrl.sendBytes(b)
	go ctrl.ping()
	m, err := ctrl.tended(p.Name, got)
	if a, ok := m.(*wire.Answer); ok && a.Code != wire.CodeNone { // it could not read what it was told
		m = &wire.Tended{Code: a.Code, Reason: a.Reason}
	}
	if done, ok := m.(*wire.Tended); ok {
		r.take(done)
	} else {
		r.State, r.Cause = Failed, because(c.untended(ctx, ctrl, err))
	}
}

// errStands is the error of a node that does not get on.
var errStands = fmt.Errorf("did not get on for %v", timings.tendFor)

// tended waits for the end of work on the cache of a node.
func (c *control) tended(node string, got func(TendProgress)) (wire.Message, error) {
	last := TendProgress{Node: node}
	for since := time.Now(); ; {
		m, err := c.read(timings.silence)
		if err != nil {
			return nil, err
		}
		switch m := m.(type) {
		case *wire.Pong:
		case *wire.Tending:
			if m.Done > last.Done {
				last.Done, last.All, since = m.Done, m.All, time.Now()
				got(last)
			}
		default:
			return m, nil
		}
		if time.Since(since) > timings.tendFor {
			return nil, errStands
		}
	}
}

// untended words why a node did not say that it had done its work.
func (c *caller) untended(ctx context.Context, ctrl *control, err error) string {
	switch {
	case err == nil:
		return "answers something else than it was told"
	case errors.Is(err, errStands):
		return err.Error()
	}
	return c.unanswered(ctx, ctrl, err)
}

// take notes what the node answered.
func (r *TendReply) take(m *wire.Tended) {
	switch {
	case m.Code.Refuses() || m.Code == wire.CodeBusy:
		r.State, r.Cause = Refused, Cause{Fault: FaultDenied, Text: wire.Printable(m.Reason)}
	case m.Code != wire.CodeNone:
		r.State, r.Cause = Failed, because(wire.Printable(m.Reason))
	default:
		r.Tended = tended(m)
	}
}
