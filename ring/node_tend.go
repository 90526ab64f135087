package ring

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// How a node tends its cache for a sender. That takes no place for a transfer, and lasts as long as it gets on and the sender waits.

// tenders has a place for each kind of work that is done at the same time.
type tenders struct {
	verify, other chan struct{}
}

func newTenders() tenders { return tenders{make(chan struct{}, 1), make(chan struct{}, 1)} }

// tend carries out what a sender says, and returns when the sender hangs up.
func (n *Node) tend(ctrl *control, cfg *NodeConfig, by Client, m *wire.Tend) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	left := make(chan struct{})
	go func() {
		defer close(left)
		defer cancel()
		for {
			m, err := ctrl.read(timings.silence)
			if _, ping := m.(*wire.Ping); err != nil || !ping {
				return
			}
		}
	}()
	w := workOf(m)
	log := n.log.With("client", wire.Printable(by.Name), "peer", by.Addr, "do", m.Do)
	t, ne := n.tended(ctx, ctrl, cfg, by, w)
	answer := t.message()
	if ne != nil {
		answer.Code, answer.Reason = ne.Code, wire.Cut(ne.Error())
		log.Warn("cache not tended", "reason", ne.Error())
	} else {
		log.Info("cache tended", "images", len(t.Images)+t.More, "blobs", t.Blobs, "bytes", t.Bytes)
	}
	if ctrl.send(answer) == nil && ctx.Err() == nil {
		<-left
	}
}

func (n *Node) tended(ctx context.Context, ctrl *control, cfg *NodeConfig, by Client, w Work) (Tended, *wire.Error) {
	switch {
	case by.Role != RoleSender:
		return Tended{}, wire.Errorf(wire.CodeAuth, "a certificate of the role %s does not permit to %s, which takes one of a sender", by.Role, w.Do)
	case cfg.Stock == nil:
		return Tended{}, &wire.Error{Code: wire.CodePolicy, Err: errNoStock}
	}
	place, patience := n.tenders.other, timings.yieldFor
	if w.Do == Verifies { // which takes so long that who comes second is better told
		place, patience = n.tenders.verify, 0
	}
	select {
	case place <- struct{}{}:
	default:
		wait, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		if !take(wait, place) {
			return Tended{}, wire.Errorf(wire.CodeBusy, "busy: somebody else tends this cache")
		}
	}
	defer func() { <-place }()
	var done, all atomic.Int64
	got := func(d, a int64) {
		done.Store(d)
		all.Store(a)
	}
	var telling sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	telling.Go(func() { tell(ctx, ctrl, &done, &all) })
	t, err := cfg.Stock.Tend(ctx, w, got)
	cancel()
	telling.Wait()
	if err != nil {
		return Tended{}, coded(err, wire.CodeStore)
	}
	return t, nil
}

// tell says each second how far some work is, if it has got on.
func tell(ctx context.Context, ctrl *control, done, all *atomic.Int64) {
	tick := time.NewTicker(timings.pingEvery)
	defer tick.Stop()
	for told := int64(0); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if now := done.Load(); now > told {
			told = now
			ctrl.send(&wire.Tending{Done: now, All: all.Load()})
		}
	}
}
