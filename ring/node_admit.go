package ring

import (
	"bytes"
	"context"
	"errors"
	"sync"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// How a node decides on an offer, and waits for what another transfer has.

// What the offers of all transfers that run or wait on a node may have together, and what the least of them counts for, in bytes. In
// memory an offer takes several times its length.
const (
	maxOffered   = 6 << 20
	leastOffered = 64 << 10
)

// permit returns an error about an offer that the role of its server, or the policy of the node, does not permit, or that no
// server may make. It comes before an offer takes a place or ends anything, so that nobody changes anything by what is refused.
func (cfg *NodeConfig) permit(r Request, plain bool) *wire.Error {
	if err := checkBlobs(r.Blobs); err != nil {
		return wire.Errorf(wire.CodeProtocol, "malformed offer: %w", err)
	}
	switch {
	case r.Role != RoleSender && r.Role != RoleWarmer:
		return wire.Errorf(wire.CodeAuth, "a certificate of the role %s does not permit a transfer", r.Role)
	case len(r.Blobs) == 0 || len(r.Meta) > 64<<10:
		return wire.Errorf(wire.CodeProtocol, "malformed offer")
	case plain && !cfg.AllowPlain:
		return wire.Errorf(wire.CodePolicy, "this node's policy does not allow plain data links (to allow them, add to policy.toml there the lines [data] and plain = true)")
	case cfg.Permit == nil:
		return nil
	}
	if err := cfg.Permit(r); err != nil {
		return coded(err, wire.CodePolicy)
	}
	return nil
}

// An heir is who may end transfers whose server is gone: those of its own key, and a sender also those of others. A key that is
// online for ever ends nothing that a person began.
type heir struct {
	owner owner
	role  Role
}

func (h heir) mayEnd(s *session) bool { return h.role == RoleSender || h.owner == s.owner }

// urge ends a session whose server is gone, if the heir may.
func (h heir) urge(s *session) {
	if h.mayEnd(s) {
		s.yield()
	}
}

// admit decides on an offer of so many bytes. For a place or a target that is taken it waits
// some time; a transfer whose server is gone yields its own at once to who may end it.
func (n *Node) admit(cfg *NodeConfig, ctrl *control, id wire.ID, r Request, plain bool, size int) (*session, *wire.Error) {
	if ne := cfg.permit(r, plain); ne != nil {
		return nil, ne
	}
	by := heir{ctrl.owner, r.Role}
	ctx, cancel := context.WithTimeout(context.Background(), timings.yieldFor)
	defer cancel()
	tell := sync.OnceFunc(func() { ctrl.send(&wire.Report{Wait: wire.WaitBusy, Links: []wire.Sending{}}) })
	size = max(size, leastOffered)
	if !n.reserve(ctx, by, size, tell) {
		return nil, wire.Errorf(wire.CodeBusy, "busy with offers of %d MiB together", maxOffered>>20)
	}
	s, ne := n.claim(cfg, ctrl.owner, id, r, plain, size)
	n.succeed(ctx, by, r)
	for waits := true; waits && ne != nil && ne.Code == wire.CodeBusy; {
		tell()
		waits = n.awaitYield(ctx, by, nil) // where it ends at once, succeed may have made room
		s, ne = n.claim(cfg, ctrl.owner, id, r, plain, size)
	}
	if ne != nil {
		n.hold(-size)
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
			if n.awaitYield(ctx, by, s) {
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
func (n *Node) succeed(ctx context.Context, by heir, r Request) {
	stop := context.AfterFunc(ctx, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.changed.Broadcast()
	})
	defer stop()
	n.mu.Lock()
	defer n.mu.Unlock()
	for id, s := range n.sessions {
		if !bytes.Equal(s.req.Meta, r.Meta) || !by.mayEnd(s) || !s.isOrphan() {
			continue
		}
		s.yield()
		for n.sessions[id] == s && ctx.Err() == nil {
			n.changed.Wait()
		}
	}
}

// reserve has an offer of so many bytes counted. If there is no room for it, it waits for that, but only one offer does: it is not counted.
func (n *Node) reserve(ctx context.Context, by heir, size int, tell func()) bool {
	if n.hold(size) {
		return true
	}
	select {
	case n.crowded <- struct{}{}:
		defer func() { <-n.crowded }()
	default:
		return false
	}
	tell()
	for n.awaitYield(ctx, by, nil) {
		if n.hold(size) {
			return true
		}
	}
	return false
}

// hold counts an offer of so many bytes, if there is room for it. A session that claimed its place gives it back at its end.
func (n *Node) hold(size int) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.offered+size > maxOffered {
		return false
	}
	n.offered += size
	return true
}

// claim takes one of the node's places for a transfer.
func (n *Node) claim(cfg *NodeConfig, by owner, id wire.ID, r Request, plain bool, size int) (*session, *wire.Error) {
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
	s.offered = size
	n.sessions[id] = s
	return s, nil
}

// awaitYield ends the transfers whose server is gone, as far as an heir may, and waits for any to end;
// false when there is nothing to wait for.
func (n *Node) awaitYield(ctx context.Context, by heir, me *session) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	others := 0
	for _, s := range n.sessions {
		if s != me {
			others++
			by.urge(s)
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
				by.urge(s)
			}
		}
	}
	return ctx.Err() == nil
}
