package ring

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/member"
	"github.com/dolly-img/dolly-img/ring/internal/relay"
	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/dolly-img/dolly-img/ring/leaf"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/time/rate"
)

// session is a node's part of one transfer. It tells its machine what happens and does what the
// machine says. mu orders the machine's steps and what they cause; the relay has a mutex of its own,
// taken after mu and never before it.
type session struct {
	node  *Node
	cfg   *NodeConfig // the one that was in force when the transfer was offered
	owner owner
	id    wire.ID
	req   Request
	// offered is what the offer counts for in the node's memory.
	offered int
	// answered is the target of the ANSWER.
	answered []byte
	plain    bool
	begun    time.Time
	sink     Sink
	extra    sinkExtras // of sink
	relay    *relay.Relay
	limit    *rate.Limiter

	ctx  context.Context
	stop context.CancelFunc

	mu     sync.Mutex
	m      *member.Machine
	ctrl   *control // nil when the server's connection is gone
	orphan *time.Timer
	secret []byte // of the newest FEED
	feed   net.Conn
	// opened says that the offer was answered. From then on a server can attach to the session, and
	// links can feed it.
	opened  bool
	over    bool
	cleaned bool // it has left the table: no connection keeps it
	// forget gives back the places that the gate keeps for the session.
	forget []func()

	// reading has one place, because one feed at a time fills the window.
	reading chan struct{}
	// work is everything that must end before the sink is closed.
	work      sync.WaitGroup
	storing   storing
	comparing comparing
}

func newSession(n *Node, cfg *NodeConfig, by owner, id wire.ID, r Request, plain bool) *session {
	s := &session{
		node: n, cfg: cfg, owner: by, id: id, req: r, plain: plain, begun: time.Now(), m: member.New(r.Blobs, n.pool.MarkEvery()),
		reading: make(chan struct{}, 1), storing: storing{writers: map[int]Writer{}, cautious: map[int]*caution{}, settle: make(chan struct{}, pendingCommits)},
	}
	s.m.Ahead(n.pool.Ahead())
	s.storing.stepped.L = &s.mu
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.relay = relay.New(n.pool, r.Blobs)
	s.work.Add(1) // until admitted or discarded
	if cfg.Rate > 0 {
		s.limit = rate.NewLimiter(rate.Limit(cfg.Rate), wire.MaxPayload)
	}
	return s
}

// open asks the accepted sink what it holds and answers the offer.
func (s *session) open(ctrl *control, sink Sink) *wire.Error {
	s.mu.Lock()
	s.sink, s.extra = sink, extrasOf(sink) // cleanUp closes it from now on
	s.mu.Unlock()
	held, free, err := sink.Offer(s.ctx, s.req.Blobs)
	if err != nil {
		return coded(err, wire.CodePolicy)
	}
	if len(held) != len(s.req.Blobs) {
		return wire.Errorf(wire.CodeStore, "storage answered for %d of %d blobs", len(held), len(s.req.Blobs))
	}
	if s.extra.Opener == nil {
		clear(held) // bytes that cannot be read again cannot be passed on
	}
	target, err := s.target()
	if err != nil {
		return coded(err, wire.CodePolicy)
	}
	if len(target) > 0 && ctrl.version < wire.TargetSince {
		return wire.Errorf(wire.CodeVersion, "the server speaks protocol %d: it cannot have anybody confirm what is overwritten", ctrl.version)
	}
	switches := s.extra.Switcher != nil && holdsAll(s.req.Blobs, held) && s.extra.Switches(s.ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return s.m.Failure()
	}
	s.ctrl, s.opened, s.answered = ctrl, true, target
	s.storing.pages = ctrl.version >= wire.PagesSince
	s.expect(s.req.Addr)
	sets, leaves := s.holds(ctrl.version)
	s.m.Step(member.EvHeld{Held: held, Sets: sets, Target: target})
	s.storing.back = newReadBack(s.extra, s.req.Blobs, s.node.pool.MarkEvery(), s.known)
	s.relay.Hold(func(b int) *leaf.Set { return s.m.Position(b).Set })
	s.relay.Arrive(s.extra.Opener, func(b int) (int64, bool) {
		p := s.m.Position(b)
		return p.Accepted, !p.Held
	})
	if s.cfg.Began != nil {
		s.cfg.Began(s.req)
	}
	ctrl.send(&wire.Answer{Held: held, Free: free, Replay: s.extra.Opener != nil, Switch: switches, Leaves: leaves, Target: target})
	s.work.Done()
	return nil
}

// holds returns which leaves the sink claims to hold, by blob and for the ANSWER to a server that speaks a version.
func (s *session) holds(version int) (sets []*leaf.Set, leaves []wire.Leaves) {
	if s.extra.Holder == nil || s.extra.Opener == nil || version < wire.SetsSince {
		return nil, nil
	}
	sets = make([]*leaf.Set, len(s.req.Blobs))
	each := s.node.pool.MarkEvery()
	for b, d := range s.req.Blobs {
		if !leaf.In(d) {
			continue
		}
		set := leaf.SetOf(d.Size, each, func(off int64) bool { return off <= d.Size-each && s.extra.Holds(d, off) })
		if set.Any(0, d.Size) {
			sets[b], leaves = set, append(leaves, wire.Leaves{Blob: b, Set: set.Bits()})
		}
	}
	return sets, leaves
}

func holdsAll(blobs []v1.Descriptor, held []int64) bool {
	for b, d := range blobs {
		if !wire.Vouched(d, held[b]) {
			return false
		}
	}
	return true
}

// discard ends a session that was not admitted.
func (s *session) discard(err *wire.Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.perform(s.m.Step(member.EvFailure{Err: err}))
	s.work.Done()
}

// maxExpected is for how many addresses of its plan a session keeps places.
const maxExpected = 1024

// expect keeps a place at the gate for an address of the plan.
func (s *session) expect(addrs ...string) {
	for _, a := range addrs {
		if len(s.forget) >= maxExpected {
			return // they are treated as any others
		}
		if ap, err := netip.ParseAddrPort(a); err == nil {
			s.forget = append(s.forget, s.node.gate.expect(ap.Addr().Unmap()))
		}
	}
}

// listen serves the control connection until it ends.
func (s *session) listen(ctrl *control) {
	done := make(chan struct{})
	defer close(done)
	go s.reports(done)
	for {
		m, err := ctrl.read(timings.silence)
		if bad := s.node.unread(ctrl, err); bad != nil {
			s.lostFor(ctrl, &wire.Error{Code: wire.CodeVersion, Err: bad})
			ctrl.drain()
			return
		}
		if err != nil {
			s.disconnected(ctrl)
			return
		}
		if !s.stepIf(ctrl, member.EvMsg{Msg: m}) {
			return
		}
	}
}

// reports tells the server once a second how far this node is.
func (s *session) reports(done chan struct{}) {
	tick := time.NewTicker(timings.pingEvery)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
		}
		s.mu.Lock()
		runs := s.m.Phase() >= member.Started && s.m.Phase() < member.Failed
		if s.ctrl != nil && (runs || s.m.Comparing()) {
			s.say(s.report())
		}
		told := s.cfg.Progress != nil && (runs || s.m.Comparing() || s.m.Waits())
		var progress NodeProgress
		if told {
			progress = NodeProgress{Received: s.m.Received(), Moved: s.m.Moved() + s.storing.flushed.Load() + s.storing.back.checked(), Waits: s.m.Waits()}
		}
		s.mu.Unlock()
		if told {
			s.cfg.Progress(s.req, progress)
		}
	}
}

// report returns how far this node is. mu is held.
func (s *session) report() *wire.Report {
	r := s.m.Report()
	r.Durable += s.storing.flushed.Load()
	r.Checked = s.storing.back.checked()
	ended := s.m.AcceptedAll()
	s.relay.Report(r, ended)
	if ended && r.Wait == wire.WaitIn && s.storing.settling.Load() > 0 {
		r.Wait = wire.WaitDisk
	}
	return r
}

// sayTarget reports at once that the target is overwritten: what ends the transfer may come before the next second does.
func (s *session) sayTarget() {
	if s.extra.Overwriter == nil || s.extra.TargetState() != TargetOverwritten {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.storing.told || s.ctrl == nil || s.m.Phase() < member.Started || s.m.Phase() >= member.Failed {
		return
	}
	s.storing.told = true
	s.say(s.report())
}

// say sends a message. A report gets what only the sink knows. mu is held.
func (s *session) say(m wire.Message) {
	if r, ok := m.(*wire.Report); ok && s.extra.Overwriter != nil {
		r.Target = s.targetState()
	}
	s.ctrl.send(m)
}

// attach gives a resumed session its server's new connection.
func (s *session) attach(ctrl *control, w *wire.Welcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctrl != nil {
		s.ctrl.hangUp()
	}
	if s.orphan != nil {
		s.orphan.Stop()
	}
	s.ctrl = ctrl
	ctrl.send(w)
	s.perform(s.m.Step(member.EvResume{}))
	if s.cleaned {
		ctrl.release()
	}
}

// disconnected waits some time for the server to come back.
func (s *session) disconnected(ctrl *control) {
	s.mu.Lock()
	if s.ctrl != ctrl || s.over {
		s.mu.Unlock()
		return
	}
	s.ctrl = nil
	s.orphan = time.AfterFunc(timings.orphanFor, s.abandon)
	s.mu.Unlock()
	s.node.mu.Lock() // which is taken before s.mu
	defer s.node.mu.Unlock()
	s.node.changed.Broadcast() // another transfer may wait for this one's target
}

// isOpen reports whether the offer was answered.
func (s *session) isOpen() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opened
}

// yield ends a session at once if its server is gone. The caller may hold the mutex of
// the node.
func (s *session) yield() { go s.abandonIfOrphan() }

func (s *session) abandonIfOrphan() {
	if s.isOrphan() {
		s.abandon()
	}
}

func (s *session) isOrphan() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opened && s.ctrl == nil
}

func (s *session) step(ev member.Event) []member.Action {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.m.Step(ev)
	s.perform(out)
	return out
}

// stepIf steps, unless another control connection has taken over.
func (s *session) stepIf(ctrl *control, ev member.Event) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctrl != ctrl {
		return false
	}
	if m, ok := ev.(member.EvMsg); ok {
		if f, ok := m.Msg.(*wire.Feed); ok && f.Generation > s.m.Generation() {
			if !s.over {
				s.secret = bytes.Clone(f.Secret)
				s.expect(member.Used(f.Addrs)...)
			}
		}
	}
	s.perform(s.m.Step(ev))
	return true
}

// perform does what the machine says; mu is held.
func (s *session) perform(out []member.Action) {
	defer s.storing.stepped.Broadcast()
	for _, a := range out {
		switch a := a.(type) {
		case member.ActSay:
			if l, ok := a.Msg.(*wire.Link); ok && l.State == wire.LinkDown && !s.over && s.cfg.LinkFault != nil {
				s.cfg.LinkFault(string(l.Code))
			}
			if s.ctrl != nil && wire.Knows(s.ctrl.version, a.Msg) {
				s.say(a.Msg)
			}
		case member.ActCloseFeed:
			if s.feed != nil {
				s.feed.Close()
			}
		case member.ActReceive:
			s.startStore(s.unchanged)
		case member.ActCompare:
			s.startComparing()
		case member.ActCompared:
			s.compared()
		case member.ActReset:
			// This is done at once: a link that the server orders from now on must not be fed from
			// what is about to be dropped.
			s.relay.Halt()
			s.work.Go(s.fallBack)
		case member.ActLink:
			s.dialLink(a.Dial)
		case member.ActReach:
			if !s.over {
				s.work.Go(func() { s.tryReach(a.Probe) })
			}
		case member.ActUnlink:
			s.relay.Unfeed(a.Link)
		case member.ActSize:
			s.relay.SetSize(a.Blob, a.Size)
		case member.ActGood:
			s.storing.saved.Good(a.Blob, a.Offset)
			s.isGood(a.Blob, a.Offset)
			if s.extra.Opener != nil {
				s.relay.SetReadable(a.Blob, a.Offset)
			}
		case member.ActSettle:
			s.work.Go(func() { s.commit(a.Blob, a.Final) })
		case member.ActPrepare:
			s.work.Go(s.prepare)
		case member.ActPublish:
			s.work.Go(s.publish)
		case member.ActRelease:
			s.end()
		}
	}
}
