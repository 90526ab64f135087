package ring

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/member"
	"github.com/dolly-img/dolly-img/ring/internal/wire"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/time/rate"
)

// transfer drives one node's part of one transfer: it feeds the member with what
// happens and does what it says. mu orders the member's steps and what they
// cause; the relay has a mutex of its own, taken after mu and never before it.
type transfer struct {
	node  *nodeServer
	cfg   *NodeConfig // that was in force when it was offered
	id    wire.ID
	req   Request
	plain bool
	begun time.Time
	sink  Sink
	extra sinkExtras // of sink
	relay *relay
	limit *rate.Limiter

	ctx  context.Context
	stop context.CancelFunc

	mu      sync.Mutex
	m       *member.Machine
	ctrl    *control // nil: the server's connection is gone
	orphan  *time.Timer
	secret  []byte // of the newest FEED
	feed    net.Conn
	writers map[int]Writer
	stored  chan struct{} // closed when the store goroutine ended
	halt    chan struct{} // closed to end it, for a fallback
	opened  bool          // the offer was answered: it can be attached to and fed
	over    bool
	forget  []func() // of kept slots

	reading chan struct{}  // one feed at a time fills the window
	work    sync.WaitGroup // everything that must end before the sink is closed
	saved   savedSums
	settle  chan struct{} // bounds blobs being made durable

	settling atomic.Int32 // of them those that the disk has now
}

// pendingCommits bounds how many blobs are written but not yet durable.
const pendingCommits = 16

func newTransfer(n *nodeServer, cfg *NodeConfig, id wire.ID, r Request, plain bool) *transfer {
	t := &transfer{
		node: n, cfg: cfg, id: id, req: r, plain: plain, begun: time.Now(), m: member.New(r.Blobs),
		writers: map[int]Writer{}, reading: make(chan struct{}, 1), settle: make(chan struct{}, pendingCommits),
		saved: savedSums{blobs: map[int][]savedSum{}},
	}
	t.ctx, t.stop = context.WithCancel(context.Background())
	t.relay = newRelay(n.pool, r.Blobs, nil)
	t.work.Add(1) // until admitted or discarded
	if cfg.Rate > 0 {
		t.limit = rate.NewLimiter(rate.Limit(cfg.Rate), wire.MaxPayload)
	}
	return t
}

// open asks the accepted sink what it holds and answers the offer.
func (t *transfer) open(ctrl *control, sink Sink) *wire.Error {
	t.mu.Lock()
	t.sink, t.extra = sink, extrasOf(sink) // cleanUp closes it from now on
	t.mu.Unlock()
	held, free, err := sink.Offer(t.ctx, t.req.Blobs)
	if err != nil {
		return nodeErrorOf(err, wire.CodePolicy)
	}
	if len(held) != len(t.req.Blobs) {
		return wire.Errorf(wire.CodeStore, "storage answered for %d of %d blobs", len(held), len(t.req.Blobs))
	}
	if t.extra.Opener == nil {
		clear(held) // what cannot be read again cannot be passed on
	}
	t.relay.opener = t.extra.Opener
	switches := t.extra.Switcher != nil && holdsAll(t.req.Blobs, held) && t.extra.Switches(t.ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return t.m.Failure()
	}
	t.ctrl, t.opened = ctrl, true
	t.expect(t.req.Addr)
	t.m.Step(member.EvHeld{Held: held})
	t.relay.arrive(func(b int) bool { return !t.m.Position(b).Held })
	for b := range t.req.Blobs {
		t.relay.blobs[b].recv = t.m.Position(b).Accepted // nobody else uses it yet
	}
	if t.cfg.Began != nil {
		t.cfg.Began(t.req)
	}
	ctrl.send(&wire.Answer{Held: held, Free: free, Replay: t.relay.opener != nil, Switch: switches})
	t.work.Done()
	return nil
}

func holdsAll(blobs []v1.Descriptor, held []int64) bool {
	for b, d := range blobs {
		if !wire.Vouched(d, held[b]) {
			return false
		}
	}
	return true
}

// discard ends a transfer that was not admitted.
func (t *transfer) discard(err *wire.Error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.perform(t.m.Step(member.EvFailure{Err: err}))
	t.work.Done()
}

// expect keeps a place at the gate for an address of the plan.
func (t *transfer) expect(addrs ...string) {
	for _, a := range addrs {
		if ap, err := netip.ParseAddrPort(a); err == nil {
			t.forget = append(t.forget, t.node.gate.expect(ap.Addr().Unmap()))
		}
	}
}

// listen serves the control connection until it ends.
func (t *transfer) listen(ctrl *control) {
	done := make(chan struct{})
	defer close(done)
	go t.reports(done)
	for {
		m, err := ctrl.read(timings.silence)
		if bad := t.node.unread(ctrl, err); bad != nil {
			t.lostFor(ctrl, &wire.Error{Code: wire.CodeVersion, Err: bad})
			ctrl.drain()
			return
		}
		if err != nil {
			t.disconnected(ctrl)
			return
		}
		if !t.stepIf(ctrl, member.EvMsg{Msg: m}) {
			return
		}
	}
}

// reports tells the server once a second how far this node is.
func (t *transfer) reports(done chan struct{}) {
	tick := time.NewTicker(timings.pingEvery)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
		}
		t.mu.Lock()
		if t.ctrl != nil && t.m.Phase() >= member.Started && t.m.Phase() < member.Failed {
			r := t.m.Report()
			ended := t.m.AcceptedAll()
			t.relay.meter.fill(r, ended)
			if ended && r.Wait == wire.WaitIn && t.settling.Load() > 0 {
				r.Wait = wire.WaitDisk
			}
			r.Links = t.relay.sendings()
			t.ctrl.send(r)
		}
		t.mu.Unlock()
	}
}

// attach gives a resumed transfer its server's new connection.
func (t *transfer) attach(ctrl *control, w *wire.Welcome) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctrl != nil {
		t.ctrl.conn.Close()
	}
	if t.orphan != nil {
		t.orphan.Stop()
	}
	t.ctrl = ctrl
	ctrl.send(w)
	t.perform(t.m.Step(member.EvResume{}))
}

// disconnected waits some time for the server to come back.
func (t *transfer) disconnected(ctrl *control) {
	t.mu.Lock()
	if t.ctrl != ctrl || t.over {
		t.mu.Unlock()
		return
	}
	t.ctrl = nil
	t.orphan = time.AfterFunc(timings.orphanFor, t.abandon)
	t.mu.Unlock()
	t.node.mu.Lock() // which is taken before t.mu
	defer t.node.mu.Unlock()
	t.node.changed.Broadcast() // somebody may wait for what it has
}

// lostFor ends a transfer whose server is there and cannot be understood.
func (t *transfer) lostFor(ctrl *control, err *wire.Error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctrl == ctrl && !t.over {
		t.giveUp(err)
	}
}

// abandon ends a transfer whose server did not come back.
func (t *transfer) abandon() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctrl != nil || t.over {
		return
	}
	t.giveUp(wire.Errorf(wire.CodeAbandoned, "lost the server"))
}

// kill ends a transfer because the node stops.
func (t *transfer) kill() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.giveUp(wire.Errorf(wire.CodeShutdown, "the node is stopping"))
}

// giveUp fails the transfer, or only lets go of it when COMMIT has come: then
// publishing goes on to its end and decides the outcome. mu is held.
func (t *transfer) giveUp(err *wire.Error) {
	if t.m.Phase() >= member.Publishing {
		t.end()
		return
	}
	t.perform(t.m.Step(member.EvFailure{Err: err}))
}

// isOpen reports whether the offer was answered.
func (t *transfer) isOpen() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.opened
}

// yield ends a transfer at once if its server is gone. The caller may hold the
// node's mutex.
func (t *transfer) yield() { go t.abandonIfOrphan() }

func (t *transfer) abandonIfOrphan() {
	if t.isOrphan() {
		t.abandon()
	}
}

func (t *transfer) isOrphan() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.opened && t.ctrl == nil
}

func (t *transfer) step(ev member.Event) []member.Action {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := t.m.Step(ev)
	t.perform(out)
	return out
}

// stepIf steps unless another control connection took over.
func (t *transfer) stepIf(ctrl *control, ev member.Event) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctrl != ctrl {
		return false
	}
	if m, ok := ev.(member.EvMsg); ok {
		if f, ok := m.Msg.(*wire.Feed); ok && f.Generation > t.m.Generation() {
			if !t.over {
				t.secret = bytes.Clone(f.Secret)
				t.expect(f.Addrs...)
			}
		}
	}
	t.perform(t.m.Step(ev))
	return true
}

// perform does what the member says; mu is held.
func (t *transfer) perform(out []member.Action) {
	for _, a := range out {
		switch a := a.(type) {
		case member.ActSay:
			if t.ctrl != nil {
				t.ctrl.send(a.Msg)
			}
		case member.ActCloseFeed:
			if t.feed != nil {
				t.feed.Close()
			}
		case member.ActReceive:
			t.startStore()
		case member.ActReset:
			// At once: a link that the server orders from now on must not be fed from what is
			// about to be dropped.
			t.relay.halt()
			t.work.Go(t.fallBack)
		case member.ActLink:
			t.dialLink(a.Dial)
		case member.ActReach:
			if !t.over {
				t.work.Go(func() { t.tryReach(a.Probe) })
			}
		case member.ActUnlink:
			t.relay.unfeed(a.Link)
		case member.ActSize:
			t.relay.setSize(a.Blob, a.Size)
		case member.ActGood:
			t.saved.good(a.Blob, a.Offset)
			if t.relay.opener != nil {
				t.relay.setReadable(a.Blob, a.Offset)
			}
		case member.ActSettle:
			t.work.Go(func() { t.commit(a.Blob, a.Final) })
		case member.ActPrepare:
			t.work.Go(t.prepare)
		case member.ActPublish:
			t.work.Go(t.publish)
		case member.ActRelease:
			t.end()
		}
	}
}

// end releases everything once; mu is held.
func (t *transfer) end() {
	if t.over {
		return
	}
	t.over = true
	if t.orphan != nil {
		t.orphan.Stop()
	}
	t.stop()
	t.relay.close(errClosed)
	if t.feed != nil {
		t.feed.Close()
	}
	go t.cleanUp()
}

func (t *transfer) cleanUp() {
	t.work.Wait()
	t.relay.release()
	var problem error
	// Nobody else runs any more, but messages of the server may still come.
	good := map[int]int64{}
	t.mu.Lock()
	keep := t.m.Keeps() && t.m.Phase() != member.Committed
	for b := range t.writers {
		if t.m.Keeps() {
			good[b] = t.m.Position(b).Good
		}
	}
	t.mu.Unlock()
	for b, w := range t.writers {
		problem = errors.Join(problem, w.Abort(good[b]))
	}
	if t.extra.Keeper != nil && keep {
		t.extra.Keep()
	}
	if t.extra.Closer != nil {
		problem = errors.Join(problem, t.extra.Close())
	}
	t.mu.Lock()
	o := Outcome{State: Failed, Bytes: t.m.Received(), Seconds: round(time.Since(t.begun))}
	switch {
	case t.m.Phase() == member.Committed:
		o.State, o.Digest = Committed, t.m.Digest(len(t.req.Blobs)-1).String()
		if t.m.InPlace() && t.m.Received() == 0 { // as the server's row says it
			o.State = Held
		}
	case t.m.Failure() != nil:
		o.Err = t.m.Failure()
	default:
		o.Err = errClosed
	}
	t.mu.Unlock()
	for _, f := range t.forget {
		f()
	}
	if t.opened {
		t.logEnd(o, problem)
	}
	t.node.ended(t, o, t.opened)
	if t.sink != nil && t.cfg.Finished != nil { // also when what it was accepted with refused the offer
		t.cfg.Finished(t.req, o)
	}
}

// logEnd writes the audit line.
func (t *transfer) logEnd(o Outcome, problem error) {
	target := ""
	if t.extra.Stringer != nil {
		target = t.extra.String()
	}
	var aborted *member.AbortError
	asked := errors.As(o.Err, &aborted) && aborted.Code == wire.CodeAsked
	state := string(o.State)
	if asked {
		state = "asked"
	}
	log := t.node.log.With("target", target, "sender", wire.Printable(t.req.Sender), "peer", t.req.Addr, "transfer", t.req.Transfer,
		"state", state, "digest", o.Digest, "bytes", o.Bytes, "seconds", o.Seconds)
	switch {
	case problem != nil:
		log.Warn("transfer: cleaning up failed", "error", problem)
	case asked:
		log.Info("transfer", "reason", wire.Printable(aborted.Reason))
	case o.Err != nil:
		log.Warn("transfer", "reason", wire.Printable(fmt.Sprint(o.Err)))
	default:
		log.Info("transfer")
	}
}
