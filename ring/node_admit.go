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
func (n *nodeServer) admit(cfg *NodeConfig, ctrl *control, id wire.ID, r Request, plain bool) (*transfer, *wire.Error) {
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
	t, ne := n.claim(cfg, id, r, plain)
	n.succeed(ctx, r)
	tell := sync.OnceFunc(func() { ctrl.send(&wire.Report{Wait: wire.WaitBusy, Links: []wire.Sending{}}) })
	for ne != nil && ne.Code == wire.CodeBusy {
		tell()
		if !n.awaitYield(ctx, nil) {
			break
		}
		t, ne = n.claim(cfg, id, r, plain)
	}
	if ne != nil {
		return nil, ne
	}
	defer context.AfterFunc(t.ctx, cancel)()
	for {
		sink, err := cfg.Accept(ctx, r)
		if err == nil && t.ctx.Err() != nil {
			err = wire.Errorf(wire.CodeShutdown, "the node is stopping")
			if c := extrasOf(sink).Closer; c != nil {
				c.Close()
			}
		}
		if err == nil {
			if ne = t.open(ctrl, sink); ne == nil {
				return t, nil
			}
		} else if ne = nodeErrorOf(err, wire.CodePolicy); errors.Is(err, ErrBusy) {
			tell()
			if n.awaitYield(ctx, t) {
				continue
			}
			ne.Code = wire.CodeBusy
		}
		t.discard(ne)
		return nil, ne
	}
}

// succeed ends the transfers that this one repeats and whose server is gone, so that it
// goes on from what they leave.
func (n *nodeServer) succeed(ctx context.Context, r Request) {
	stop := context.AfterFunc(ctx, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.changed.Broadcast()
	})
	defer stop()
	n.mu.Lock()
	defer n.mu.Unlock()
	for id, t := range n.transfers {
		if !bytes.Equal(t.req.Meta, r.Meta) || !t.isOrphan() {
			continue
		}
		t.yield()
		for n.transfers[id] == t && ctx.Err() == nil {
			n.changed.Wait()
		}
	}
}

// claim takes one of the node's places for a transfer.
func (n *nodeServer) claim(cfg *NodeConfig, id wire.ID, r Request, plain bool) (*transfer, *wire.Error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.closing:
		return nil, wire.Errorf(wire.CodeShutdown, "the node is stopping")
	case n.transfers[id] != nil:
		return nil, wire.Errorf(wire.CodeProtocol, "the transfer is already running here")
	case len(n.transfers) >= cfg.Transfers:
		return nil, wire.Errorf(wire.CodeBusy, "busy with %d transfers, the limit is %d", len(n.transfers), cfg.Transfers)
	}
	t := newTransfer(n, cfg, id, r, plain)
	n.transfers[id] = t
	return t, nil
}

// awaitYield ends the transfers whose server is gone and waits for any to end;
// false when there is nothing to wait for.
func (n *nodeServer) awaitYield(ctx context.Context, me *transfer) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	others := 0
	for _, t := range n.transfers {
		if t != me {
			others++
			t.yield()
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
		for _, t := range n.transfers { // also one whose server went meanwhile
			if t != me {
				t.yield()
			}
		}
	}
	return ctx.Err() == nil
}
