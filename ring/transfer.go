package ring

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/time/rate"
)

// transfer drives one node's part of one transfer: it feeds the member with what
// happens and does what it says. mu orders the member's steps and what they
// cause; the relay has a mutex of its own, taken after mu and never before it.
type transfer struct {
	node  *nodeServer
	id    wire.ID
	req   Request
	plain bool
	begun time.Time
	sink  Sink
	relay *relay
	limit *rate.Limiter

	ctx  context.Context
	stop context.CancelFunc

	mu      sync.Mutex
	m       *member
	ctrl    *control // nil: the server's connection is gone
	orphan  *time.Timer
	secret  []byte // of the newest FEED
	feed    net.Conn
	writers map[int]Writer
	over    bool
	forget  []func() // of kept slots

	reading sync.Mutex     // one feed at a time fills the window
	work    sync.WaitGroup // everything that must end before the sink is closed
	settle  chan struct{}  // bounds blobs being made durable
	inPlace bool
}

// pendingCommits bounds how many blobs are written but not yet durable.
const pendingCommits = 16

func newTransfer(n *nodeServer, id wire.ID, r Request, plain bool) *transfer {
	t := &transfer{
		node: n, id: id, req: r, plain: plain, begun: time.Now(), m: newMember(r.Blobs),
		writers: map[int]Writer{}, settle: make(chan struct{}, pendingCommits),
	}
	t.ctx, t.stop = context.WithCancel(context.Background())
	if n.cfg.Rate > 0 {
		t.limit = rate.NewLimiter(rate.Limit(n.cfg.Rate), wire.MaxPayload)
	}
	return t
}

// open asks the accepted sink what it holds and answers the offer.
func (t *transfer) open(ctrl *control, sink Sink) *nodeError {
	t.sink = sink
	held, free, err := sink.Offer(t.ctx, t.req.Blobs)
	if err != nil {
		return nodeErrorOf(err, CodePolicy)
	}
	if len(held) != len(t.req.Blobs) {
		return failf(CodeStore, "storage answered for %d of %d blobs", len(held), len(t.req.Blobs))
	}
	opener, _ := sink.(Opener)
	if opener == nil {
		clear(held) // what cannot be read again cannot be passed on
	}
	t.relay = newRelay(t.node.pool, t.req.Blobs, opener)
	t.mu.Lock()
	t.ctrl = ctrl
	t.mu.Unlock()
	t.expect(t.req.Addr)
	t.step(meHeld{held})
	t.relay.arrive(func(b int) bool { return !t.m.blobs[b].held })
	ctrl.send(&wire.Answer{Held: held, Free: free})
	return nil
}

// discard ends a transfer that was never answered.
func (t *transfer) discard(err *nodeError) {
	t.stop()
	if c, ok := t.sink.(io.Closer); ok {
		c.Close()
	}
	t.node.ended(t, Outcome{State: Refused, Err: err}, false)
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
		m, err := ctrl.read(silence)
		if err != nil {
			t.disconnected(ctrl)
			return
		}
		if !t.stepIf(ctrl, meMsg{m}) {
			return
		}
	}
}

// reports tells the server once a second how far this node is.
func (t *transfer) reports(done chan struct{}) {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
		}
		t.mu.Lock()
		if t.ctrl != nil && t.m.phase == mStarted {
			r := t.m.report()
			r.Wait = t.relay.waits.take(pingEvery)
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
	t.perform(t.m.step(meResume{}))
}

// disconnected waits some time for the server to come back.
func (t *transfer) disconnected(ctrl *control) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctrl != ctrl || t.over {
		return
	}
	t.ctrl = nil
	t.orphan = time.AfterFunc(orphanFor, t.abandon)
}

// abandon ends a transfer whose server did not come back.
func (t *transfer) abandon() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctrl != nil || t.over {
		return
	}
	t.giveUp(failf(CodeAbandoned, "lost the server"))
}

// kill ends a transfer because the node stops.
func (t *transfer) kill() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.giveUp(failf(CodeShutdown, "the node is stopping"))
}

// giveUp fails the transfer, or only lets go of it when COMMIT has come: then
// publishing goes on to its end and decides the outcome. mu is held.
func (t *transfer) giveUp(err *nodeError) {
	if t.m.phase >= mPublishing {
		t.end()
		return
	}
	t.perform(t.m.step(meFailure{err}))
}

// yield ends a transfer at once if its server is gone. The caller may hold the
// node's mutex.
func (t *transfer) yield() { go t.abandonIfOrphan() }

func (t *transfer) abandonIfOrphan() {
	t.mu.Lock()
	orphaned := t.orphan != nil && t.ctrl == nil
	t.mu.Unlock()
	if orphaned {
		t.abandon()
	}
}

func (t *transfer) step(ev any) []action {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := t.m.step(ev)
	t.perform(out)
	return out
}

// stepIf steps unless another control connection took over.
func (t *transfer) stepIf(ctrl *control, ev any) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctrl != ctrl {
		return false
	}
	if m, ok := ev.(meMsg); ok {
		if f, ok := m.msg.(*wire.Feed); ok && f.Generation > t.m.feedGen {
			t.secret = bytes.Clone(f.Secret)
			t.expect(f.Addrs...)
		}
	}
	t.perform(t.m.step(ev))
	return true
}

// perform does what the member says; mu is held.
func (t *transfer) perform(out []action) {
	for _, a := range out {
		switch a := a.(type) {
		case actSay:
			if t.ctrl != nil {
				t.ctrl.send(a.msg)
			}
		case actCloseFeed:
			if t.feed != nil {
				t.feed.Close()
			}
		case actReceive:
			t.work.Go(t.store)
		case actLink:
			t.dialLink(a.dial)
		case actUnlink:
			t.relay.unfeed(a.link)
		case actSize:
			t.relay.setSize(a.blob, a.size)
		case actGood:
			if t.relay.opener != nil {
				t.relay.setReadable(a.blob, a.off)
			}
		case actSettle:
			t.work.Go(func() { t.commit(a.blob, a.final) })
		case actPrepare:
			t.work.Go(t.prepare)
		case actPublish:
			t.work.Go(t.publish)
		case actRelease:
			t.end()
		}
	}
}

// openFeed decides on an incoming link.
func (t *transfer) openFeed(h wire.Hello, b, challenge []byte, conn net.Conn) byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over || t.secret == nil || !wire.Proves(b, t.secret, challenge) {
		return wire.HelloRefused
	}
	if _, tls := conn.(*tls.Conn); tls == t.plain {
		return wire.HelloRefused
	}
	out := t.m.step(meOpen{h.Link, h.Generation})
	if r, ok := out[0].(actRefuse); ok {
		return r.status
	}
	t.feed = conn
	t.work.Add(1)
	return wire.HelloOK
}

// feedClosed undoes openFeed once the connection is no longer read.
func (t *transfer) feedClosed(conn net.Conn) {
	t.mu.Lock()
	if t.feed == conn {
		t.feed = nil
	}
	t.mu.Unlock()
	t.work.Done()
}

// receive is the reading goroutine of a link: it checks each frame and forwards
// it before it reads the next.
func (t *transfer) receive(l *linkReader, h wire.Hello) {
	t.reading.Lock()
	defer t.reading.Unlock()
	fin, err := t.frames(l, h.Generation)
	code, reason := CodeNone, ""
	if !fin {
		code, reason = CodeNetwork, "connection lost"
		var ne *nodeError
		var fe *wire.FrameError
		switch {
		case errors.As(err, &ne):
			code, reason = ne.code, ne.Error()
		case errors.As(err, &fe):
			code, reason = CodeProtocol, fe.Error()
		case err == io.ErrUnexpectedEOF:
			reason = "ended without its final record"
		case err != nil:
			reason = err.Error()
		}
	}
	t.step(meFeedEnd{h.Link, h.Generation, fin, code, reason})
}

func (t *transfer) frames(l *linkReader, gen uint32) (fin bool, err error) {
	var hdr [wire.HeaderSize]byte
	for {
		start := time.Now()
		h, err := l.header(&hdr)
		t.relay.waits.add(waitIn, start)
		if err != nil {
			return false, err
		}
		if h.Type == wire.Fin {
			if wire.Sum(&hdr, nil) != h.CRC {
				return false, failf(CodeCRC, "the final record was damaged on the link")
			}
			return true, nil
		}
		buf, err := t.relay.reserve(h.Length)
		if err != nil {
			return false, err
		}
		start = time.Now()
		if err := l.payload(&hdr, h, buf); err != nil {
			return false, err
		}
		t.relay.waits.add(waitIn, start)
		if t.limit != nil {
			if err := t.limit.WaitN(t.ctx, h.Length); err != nil {
				return false, err
			}
		}
		out := t.step(meFrame{gen, h.Blob, h.Offset, h.Length})
		if _, ok := out[0].(actAccept); !ok {
			return false, failf(CodeProtocol, "unexpected bytes of blob %d at %d", h.Blob, h.Offset)
		}
		if err := t.relay.put(&hdr, buf, h.Blob, h.Offset); err != nil {
			return false, err
		}
	}
}

// dialLink feeds a successor. The plain and the TLS form differ only in conf.
func (t *transfer) dialLink(d *wire.Dial) {
	var conf *tls.Config
	if !t.plain {
		conf = t.node.cfg.DataTLS(d.Name)
	}
	report := func(link, gen uint32, state string, code Code, reason string) {
		t.step(meLink{link, gen, state, code, reason})
	}
	err := t.relay.feed(t.ctx, d.Link, d.Generation, d.Needs, func(ctx context.Context, h wire.Hello) (linkWriter, error) {
		h.Transfer = t.id
		return t.node.net.openLink(ctx, d.Addrs, conf, h, d.Secret)
	}, report)
	if err != nil {
		go report(d.Link, d.Generation, wire.LinkDown, CodeProtocol, err.Error())
	}
}

// store hashes and writes what arrives.
func (t *transfer) store() {
	var blobs []int
	for b := range t.req.Blobs {
		if !t.m.blobs[b].held { // fixed before START
			blobs = append(blobs, b)
		}
	}
	s := &store{relay: t.relay, blobs: blobs,
		begin: func(b int) (io.Writer, error) {
			select {
			case t.settle <- struct{}{}:
			case <-t.ctx.Done():
				return nil, t.ctx.Err()
			}
			w, err := t.sink.Begin(t.ctx, t.req.Blobs[b], 0)
			if err != nil {
				return nil, nodeErrorOf(err, CodeStore)
			}
			t.mu.Lock()
			t.writers[b] = w
			t.mu.Unlock()
			return w, nil
		},
		sum: func(b int, off int64, sum []byte, end bool) error {
			t.step(meSum{b, off, sum, end})
			return nil
		},
	}
	if err := s.run(); err != nil && t.ctx.Err() == nil {
		t.step(meFailure{nodeErrorOf(err, CodeStore)})
	}
}

// commit makes one verified blob durable while the next one streams.
func (t *transfer) commit(b int, final v1.Descriptor) {
	t.mu.Lock()
	w := t.writers[b]
	delete(t.writers, b)
	t.mu.Unlock()
	d := t.req.Blobs[b]
	d.Digest, d.Size = final.Digest, final.Size
	err := w.Commit(t.ctx, d)
	<-t.settle
	if err != nil {
		t.step(meFailure{nodeErrorOf(err, CodeStore)})
		return
	}
	t.step(meDurable{b})
}

func (t *transfer) prepare() {
	inPlace := false
	if p, ok := t.sink.(Preparer); ok {
		final := make([]v1.Descriptor, len(t.req.Blobs))
		for b, d := range t.req.Blobs {
			d.Digest, d.Size = t.m.digest(b), t.m.blobs[b].size // settled by now
			final[b] = d
		}
		var err error
		if inPlace, err = p.Prepare(t.ctx, final); err != nil {
			t.step(meFailure{nodeErrorOf(err, CodeStore)})
			return
		}
	}
	t.step(mePrepared{inPlace})
}

// publish is not cut short by the end of the transfer: after COMMIT there is no
// way back.
func (t *transfer) publish() {
	if err := t.sink.Publish(context.WithoutCancel(t.ctx)); err != nil {
		t.step(meFailure{nodeErrorOf(err, CodeStore)})
		return
	}
	t.step(mePublished{})
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
	for _, w := range t.writers {
		problem = errors.Join(problem, w.Abort(0))
	}
	if c, ok := t.sink.(io.Closer); ok {
		problem = errors.Join(problem, c.Close())
	}
	t.mu.Lock()
	o := Outcome{State: Failed, Bytes: t.m.received, Seconds: round(time.Since(t.begun))}
	switch {
	case t.m.phase == mCommitted:
		o.State, o.Digest = Committed, t.m.digest(len(t.m.blobs)-1).String()
		if t.m.inPlace {
			o.State = Held
		}
	case t.m.failed != nil:
		o.Err = t.m.failed
	default:
		o.Err = errClosed
	}
	t.mu.Unlock()
	for _, f := range t.forget {
		f()
	}
	log := t.node.log.With("sender", printable(t.req.Sender), "peer", t.req.Addr, "transfer", t.req.Transfer,
		"state", string(o.State), "digest", o.Digest, "bytes", o.Bytes, "seconds", o.Seconds)
	switch {
	case problem != nil:
		log.Warn("transfer: cleaning up failed", "error", problem)
	case o.Err != nil:
		log.Warn("transfer", "reason", printable(fmt.Sprint(o.Err)))
	default:
		log.Info("transfer")
	}
	t.node.ended(t, o, true)
	if t.node.cfg.Finished != nil {
		t.node.cfg.Finished(t.req, o)
	}
}
