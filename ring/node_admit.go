package ring

import (
	"bytes"
	"context"
	"errors"
	"sync"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// How a node decides on an offer, and waits for what another transfer has.

// admit decides on an offer. For a place or a target that is taken it waits
// some time; a transfer whose server is gone yields its own at once.
func (n *Node) admit(cfg *NodeConfig, ctrl *control, id wire.ID, r Request, plain bool) (*session, *wire.Error) {
	if err := checkBlobs(r.Blobs); err != nil {
		return nil, wire.Errorf(wire.CodeProtocol, "malformed offer: %w", err)
	}
	switch {
	case len(r.Blobs) == 0 || len(r.Meta) > 64<<10:
		return nil, wire.Errorf(wire.CodeProtocol, "malformed offer")
	case plain && !cfg.AllowPlain:
		return nil, wire.Errorf(wire.CodePolicy, "this node's policy does not allow plain data links ([data] plain)")
	}
	ctx, cancel := context.WithTimeout(context.Background(), timings.yieldFor)
	defer cancel()
	s, ne := n.claim(cfg, ctrl.owner, id, r, plain)
	n.succeed(ctx, r)
	tell := sync.OnceFunc(func() { ctrl.send(&wire.Report{Wait: wire.WaitBusy, Links: []wire.Sending{}}) })
	for ne != nil && ne.Code == wire.CodeBusy {
		tell()
		if !n.awaitYield(ctx, nil) {
			break
		}
		s, ne = n.claim(cfg, ctrl.owner, id, r, plain)
	}
	if ne != nil {
		return nil, ne
	}
	defer context.AfterFunc(s.ctx, cancel)()
	for {
		sink, err := cfg.Accept(ctx, r)
		if err == nil && s.ctx.Err() != nil {
			err = wire.Errorf(wire.CodeShutdown, "the node is stopping")
			if c := extrasOf(sink).Closer; c != nil {
				c.Close()
			}
		}
		if err == nil {
			if ne = s.open(ctrl, sink); ne == nil {
				return s, nil
			}
		} else if ne = coded(err, wire.CodePolicy); errors.Is(err, ErrBusy) {
			tell()
			if n.awaitYield(ctx, s) {
				continue
			}
			ne.Code = wire.CodeBusy
		}
		s.discard(ne)
		return nil, ne
	}
}

// succeed ends the transfers that this one repeats and whose server is gone, so that it
// goes on from what they leave.
func (n *Node) succeed(ctx context.Context, r Request) {
	stop := context.AfterFunc(ctx, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.changed.Broadcast()
	})
	defer stop()
	n.mu.Lock()
	defer n.mu.Unlock()
	for id, s := range n.sessions {
		if !bytes.Equal(s.req.Meta, r.Meta) || !s.isOrphan() {
			continue
		}
		s.yield()
		for n.sessions[id] == s && ctx.Err() == nil {
			n.changed.Wait()
		}
	}
}

// claim takes one of the node's places for a transfer.
func (n *Node) claim(cfg *NodeConfig, by owner, id wire.ID, r Request, plain bool) (*session, *wire.Error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.closing:
		return nil, wire.Errorf(wire.CodeShutdown, "the node is stopping")
	case n.sessions[id] != nil:
		return nil, wire.Errorf(wire.CodeProtocol, "the transfer is already running here")
	case len(n.sessions) >= cfg.Transfers:
		return nil, wire.Errorf(wire.CodeBusy, "busy with %d transfers, the limit is %d", len(n.sessions), cfg.Transfers)
	}
	s := newSession(n, cfg, by, id, r, plain)
	n.sessions[id] = s
	return s, nil
}

// awaitYield ends the transfers whose server is gone and waits for any to end;
// false when there is nothing to wait for.
func (n *Node) awaitYield(ctx context.Context, me *session) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	others := 0
	for _, s := range n.sessions {
		if s != me {
			others++
			s.yield()
		}
	}
	if others == 0 || ctx.Err() != nil {
		return false
	}
	before := n.endings
	stop := context.AfterFunc(ctx, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.changed.Broadcast()
	})
	defer stop()
	for n.endings == before && ctx.Err() == nil {
		n.changed.Wait()
		for _, s := range n.sessions { // also one whose server went meanwhile
			if s != me {
				s.yield()
			}
		}
	}
	return ctx.Err() == nil
}
