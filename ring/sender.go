package ring

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/coordinator"
	"github.com/dolly-img/dolly-img/ring/internal/relay"
	"github.com/dolly-img/dolly-img/ring/internal/wire"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/time/rate"
)

// sender drives one transfer on the server: it tells the coordinator what happens, and does
// what that says. All of it belongs to the goroutine of run, except for what mu guards.
// The goroutines that run starts read only what was set before they began.
type sender struct {
	caller
	cfg   Config
	blobs []v1.Descriptor
	// offer is the encoded OFFER, the same for all nodes.
	offer []byte
	chain *coordinator.Machine
	relay *relay.Relay
	// conns are the control connections by node number, and nil where there is none.
	conns []*control
	// keys are the secrets of links that FEED named and DIAL did not, by link.
	keys  map[uint32][]byte
	begun time.Time
	// first is when the source began to be read.
	first time.Time
	// once is set when an update has read its source for the first time.
	once atomic.Pointer[firstReading]
	// read says which blobs are read, because a node lacks them.
	read []bool
	past samples
	// verifying says that the progress was that of reading back.
	verifying bool
	// shown is what was shown of each node, by node number.
	shown []shown

	pool *relay.Pool
	// limit bounds what is sent. rates has new bounds, which run takes.
	limit *rate.Limiter
	rates <-chan int64

	events chan any
	// done is closed when run no longer takes events.
	done chan struct{}
	work sync.WaitGroup
	// source is closed when pump and store have ended. It is nil before they begin.
	source chan struct{}
	stop   context.CancelFunc

	// marks are those that nodes may be sent.
	marks *markPages

	mu sync.Mutex
	// fresh are the marks that were not taken over into marks yet.
	fresh   []wire.Mark
	newMark chan struct{}
}

// connected brings a new control connection into run.
type connected struct {
	node int
	ctrl *control
	ev   any // EvWelcome or EvResumed
}

func (s *sender) run(ctx context.Context) (*Report, error) {
	s.begun = time.Now()
	if err := s.prepare(ctx); err != nil {
		err = &SourceError{Err: err}
		return s.unprepared(err), err
	}
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = cancel
	s.dialAll(work)
	err := s.loop(ctx, work)
	s.lastWords(work)
	close(s.done)
	s.shutdown()
	s.endNodes()
	return s.report(), err
}

// loop takes events until the coordinator is finished.
func (s *sender) loop(ctx, work context.Context) error {
	deadline := time.NewTimer(max(timings.startLimit, s.cfg.Wait))
	defer deadline.Stop()
	tick := time.NewTicker(timings.tickEvery)
	defer tick.Stop()
	measured := s.begun
	interrupted := ctx.Done()
	var pause <-chan time.Time
	for {
		var ev any
		select {
		case ev = <-s.events:
		case <-s.newMark:
			// The first mark goes at once, those that follow within timings.markPause go together.
			if pause == nil {
				s.chain.Step(coordinator.EvMarked{}) // which has no actions
				s.broadcastMarks()
				pause = time.After(timings.markPause)
			}
			continue
		case <-pause:
			pause = nil
			s.broadcastMarks()
			continue
		case most, more := <-s.rates:
			ev = s.limitTo(most, more)
		case <-deadline.C:
			ev = coordinator.EvDeadline{}
		case <-interrupted:
			interrupted, ev = nil, coordinator.EvInterrupt{}
		case now := <-tick.C:
			if now.Sub(measured) >= timings.pingEvery {
				measured = now
				if finished, err := s.apply(work, s.measure()); finished {
					return err
				}
				s.progress()
			}
			ev = coordinator.EvTick{Now: time.Since(s.begun)}
		}
		if h, ok := ev.(heard); ok {
			if ev = s.hear(h); ev == nil {
				continue
			}
		}
		if c, ok := ev.(connected); ok {
			if old := s.conns[c.node]; old != nil {
				old.finish()
			}
			s.conns[c.node], ev = c.ctrl, c.ev
			if finished, err := s.apply(work, ev); finished {
				return err
			}
			if !s.chain.Alive(c.node) {
				c.ctrl.finish()
			}
			continue
		}
		if finished, err := s.apply(work, ev); finished {
			return err
		}
		if r, ok := ev.(coordinator.EvReport); ok {
			s.sendMarks(r.Node) // it may make room for more of them
		}
	}
}

// lastWords waits for nodes whose parts have ended until each has said whether it has begun to overwrite something, but not for long.
func (s *sender) lastWords(work context.Context) {
	limit := time.NewTimer(timings.farewell)
	defer limit.Stop()
	for s.chain.Parting() {
		select {
		case ev := <-s.events:
			switch ev := ev.(type) {
			case heard:
				if ev := s.hear(ev); ev != nil {
					_, _ = s.apply(work, ev)
				}
			case connected:
				ev.ctrl.finish()
			}
		case <-limit.C:
			return
		}
	}
}

func (s *sender) apply(work context.Context, ev any) (finished bool, err error) {
	if _, read := ev.(coordinator.EvCompareRead); read {
		s.broadcastMarks() // before START
	}
	for _, a := range s.chain.Step(ev) {
		switch a := a.(type) {
		case coordinator.ActSend:
			s.conns[a.Node].send(a.Msg)
		case coordinator.ActOffer:
			s.conns[a.Node].sendBytes(s.offer)
		case coordinator.ActConfirm:
			s.confirm(work)
		case coordinator.ActPlan:
			s.plan(a)
		case coordinator.ActFeed:
			s.keys[a.Link] = secret()
			name := "server"
			var addrs []string
			if a.From > 0 {
				name, addrs = s.cfg.Nodes[a.From-1].Name, s.cfg.Nodes[a.From-1].links()
			}
			s.conns[a.Node].send(&wire.Feed{Link: a.Link, Generation: a.Generation, Secret: s.keys[a.Link], From: name, Addrs: addrs})
		case coordinator.ActDial:
			s.dialLink(work, a)
		case coordinator.ActUndial:
			if a.Feeder == 0 {
				s.relay.Unfeed(a.Link)
			} else {
				s.conns[a.Feeder].undial(a.Link)
			}
		case coordinator.ActMarks:
			s.marks.again(a.Node)
			s.sendMarks(a.Node)
		case coordinator.ActCompare:
			s.compare(work)
		case coordinator.ActSource:
			s.startSource(work, a.Common)
		case coordinator.ActRedial:
			s.work.Go(func() { s.redial(work, a.Node) })
		case coordinator.ActResume:
			s.work.Go(func() { s.resume(work, a.Node, a.Committed) })
		case coordinator.ActProbe:
			p := s.cfg.Nodes[a.To-1]
			s.conns[a.From].send(&wire.Probe{Probe: a.Probe, Name: p.Name, Addrs: p.links()})
		case coordinator.ActHangup:
			s.conns[a.Node].finish()
		case coordinator.ActFinal:
			s.shown[a.Node].ended = time.Since(s.begun)
			row := s.row(a.Node)
			s.tell(a.Node, Event{Kind: EventNode, Node: row.Node, State: row.State, Reason: row.Reason, Cause: row.Cause, Link: row.Link})
		case coordinator.ActNode:
			s.tell(a.Node, Event{Kind: EventNode, Node: s.cfg.Nodes[a.Node-1].Name, State: State(a.State), Reason: a.Cause.String(), Cause: publicCause(a.Cause)})
		case coordinator.ActLink:
			s.event(Event{Kind: EventLink, Link: a.Link, Up: a.Up, Again: a.Again, Reason: a.Reason})
		case coordinator.ActCommit:
			s.event(Event{Kind: EventCommit})
		case coordinator.ActFinish:
			finished, err = true, a.Err
		}
	}
	return finished, err
}

func (s *sender) post(ev any) {
	select {
	case s.events <- ev:
	case <-s.done:
		if c, ok := ev.(connected); ok {
			c.ctrl.finish()
		}
	}
}

func (s *sender) event(ev Event) {
	if s.cfg.OnEvent == nil {
		return
	}
	ev.Time, ev.Transfer = time.Now(), s.id.String()
	s.cfg.OnEvent(ev)
}

func (s *sender) plan(a coordinator.ActPlan) {
	s.read = a.Read
	if p, ok := s.cfg.Source.(Planned); ok {
		p.Planned(slices.Clone(a.Read))
	}
	s.relay.Arrive(s.cfg.Source, func(b int) (int64, bool) { return 0, a.Read[b] })
	s.addUnread(0)
	names := make([]string, len(a.Nodes))
	for i, n := range a.Nodes {
		names[i] = s.cfg.Nodes[n-1].Name
	}
	s.event(Event{Kind: EventPlan, Nodes: names, Total: totalSize(s.blobs)})
}

// dialLink orders a link from its feeder, or opens the link when the server is the feeder.
func (s *sender) dialLink(work context.Context, a coordinator.ActDial) {
	peer, key := s.cfg.Nodes[a.Node-1], s.keys[a.Link]
	delete(s.keys, a.Link)
	d := &wire.Dial{Link: a.Link, Generation: a.Generation, Secret: key, Name: peer.Name, Addrs: peer.links(), Needs: a.Needs, Lag: a.Lag, Leaves: a.Leaves}
	d.Padded = s.speaks(a.Feeder, wire.PadsSince) && s.speaks(a.Node, wire.PadsSince)
	d.Zeros = s.speaks(a.Feeder, wire.ZerosSince) && s.speaks(a.Node, wire.ZerosSince)
	if a.Feeder != 0 {
		s.conns[a.Feeder].send(d)
		return
	}
	var conf *tls.Config
	if !s.cfg.Plain {
		conf = s.cfg.DataTLS(peer.Name)
	}
	report := func(link, gen uint32, state string, code wire.Code, reason string) {
		s.post(coordinator.EvLink{Link: link, Generation: gen, State: state, Code: code, Reason: reason})
	}
	err := s.relay.Feed(work, d, func(ctx context.Context, h wire.LinkHello) (relay.LinkWriter, error) {
		h.Transfer = s.id
		return s.net.openLink(ctx, peer.links(), conf, h, key)
	}, report)
	if err != nil {
		go report(a.Link, a.Generation, wire.LinkDown, wire.CodeProtocol, err.Error())
	}
}

// speaks reports whether a node speaks a version, or a later one. Node 0 is the server.
func (s *sender) speaks(node, version int) bool {
	return node == 0 || s.conns[node].version >= version
}

// shutdown waits until the nodes have what was said, and then ends everything.
func (s *sender) shutdown() {
	limit := time.NewTimer(timings.farewell)
	defer limit.Stop()
	for _, c := range s.conns {
		if c != nil {
			c.finish()
		}
	}
	for _, c := range s.conns {
		if c == nil {
			continue
		}
		select {
		case <-c.done:
		case <-limit.C:
			limit.Reset(0)
			c.conn.Close()
		}
	}
	s.stop()
	s.relay.Close(relay.ErrClosed)
	s.drain()
	if s.source != nil {
		select {
		case <-s.source:
		case <-time.After(timings.farewell):
			return // a read that nothing ends still uses the window
		}
	}
	s.relay.Release()
}

// drain waits for all that the sender began. A dial that succeeds only now still posts
// its connection, which would be open for ever if nobody took it.
func (s *sender) drain() {
	ended := make(chan struct{})
	go func() { s.work.Wait(); close(ended) }()
	for {
		select {
		case ev := <-s.events:
			if c, ok := ev.(connected); ok {
				c.ctrl.finish()
			}
		case <-ended:
			return
		}
	}
}

func (s *sender) report() *Report {
	r := &Report{Transfer: s.id.String(), Seconds: round(time.Since(s.begun)), Bytes: totalSize(s.blobs)}
	for i := range s.cfg.Nodes {
		r.Nodes = append(r.Nodes, s.row(i+1))
	}
	r.Direct, r.Unreached, r.Unprobed = s.chain.Direct(), s.unreached(), s.unprobed()
	if n := len(s.blobs); n > 0 {
		r.Digest = s.blobs[n-1].Digest.String()
		if d := s.chain.Digest(); d != "" {
			r.Digest = d.String()
		}
	}
	r.Sent, r.Bytes, r.NoSHA = s.relay.Sent(), s.relay.Total(), relay.NoSHA()
	if !s.first.IsZero() {
		r.Waited, r.Elapsed = s.first.Sub(s.begun), time.Since(s.first)
	}
	return r
}

func secret() []byte {
	b := make([]byte, wire.SecretSize)
	rand.Read(b)
	return b
}
