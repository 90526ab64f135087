package ring

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/member"
	"github.com/dolly-img/dolly-img/ring/internal/relay"
	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// keptOutcomes is how many ended transfers a node can still be asked after.
const keptOutcomes = 64

// Node takes part in transfers on one or more listeners. It tells connections apart and owns the
// table of sessions, one for each transfer.
type Node struct {
	cfg      atomic.Pointer[NodeConfig] // replaced as a whole, never changed
	net      transport
	instance wire.ID
	pool     *relay.Pool
	gate     gate
	bare     bool // control without TLS, for simulations that cannot afford it; nothing outside tests sets it
	log      *slog.Logger

	mu        sync.Mutex
	changed   sync.Cond // a session ended
	sessions  map[wire.ID]*session
	endings   int           // transfers that ended
	outcomes  []keptOutcome // newest last
	listeners map[net.Listener]bool
	conns     map[*stranger]bool
	closing   bool
	work      sync.WaitGroup
}

type keptOutcome struct {
	id wire.ID
	Outcome
}

// NewNode checks cfg and makes a node; it does nothing until Serve.
func NewNode(cfg NodeConfig) (*Node, error) {
	n := &Node{
		net: tcp, pool: relay.NewPool(cfg.Window, relay.Sizes{}), log: cfg.Log,
		sessions: map[wire.ID]*session{}, listeners: map[net.Listener]bool{}, conns: map[*stranger]bool{},
	}
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	if err := n.Reconfigure(cfg); err != nil {
		return nil, err
	}
	n.changed.L = &n.mu
	rand.Read(n.instance[:])
	return n, nil
}

// Serve accepts connections on l until Shutdown, then returns nil.
func (n *Node) Serve(l net.Listener) error {
	n.mu.Lock()
	if n.closing {
		n.mu.Unlock()
		l.Close()
		return nil
	}
	n.listeners[l] = true
	n.mu.Unlock()
	for delay := time.Duration(0); ; {
		conn, err := l.Accept()
		if err != nil {
			n.mu.Lock()
			closing := n.closing
			n.mu.Unlock()
			if closing {
				return nil
			}
			var ne net.Error
			if errors.As(err, &ne) && !errors.Is(err, net.ErrClosed) {
				// Out of descriptors, most likely: others will be closed.
				delay = min(max(2*delay, 5*time.Millisecond), time.Second)
				n.log.Warn("accept", "error", err)
				time.Sleep(delay)
				continue
			}
			return err
		}
		delay = 0
		leave, ok := n.gate.enter(conn.RemoteAddr())
		if !ok {
			conn.Close()
			continue
		}
		n.mu.Lock()
		if n.closing {
			n.mu.Unlock()
			leave()
			conn.Close()
			continue
		}
		guard := &stranger{Conn: conn, left: gateBytes}
		n.conns[guard] = true
		n.work.Add(1)
		n.mu.Unlock()
		go func() {
			defer n.work.Done()
			n.handle(guard, leave)
			leave()
			conn.Close()
			n.mu.Lock()
			delete(n.conns, guard)
			n.mu.Unlock()
		}()
	}
}

// handle authenticates a connection and serves it on its plane until it ends.
func (n *Node) handle(guard *stranger, leave func()) {
	guard.SetDeadline(time.Now().Add(timings.startLimit))
	var first [1]byte
	if _, err := guard.Read(first[:]); err != nil {
		return
	}
	cfg := n.config()
	switch {
	case first[0] == 0x16:
		low := relay.NewLowConn(guard, true, first[:])
		conn := tls.Server(low, cfg.TLS)
		if err := conn.Handshake(); err != nil {
			if !isTimeout(err) {
				n.log.Warn("refused", "peer", guard.RemoteAddr().String(), "reason", wire.Printable(err.Error()))
			}
			return
		}
		switch conn.ConnectionState().NegotiatedProtocol {
		case ALPNControl:
			guard.trust()
			leave()
			n.control(conn, cfg)
		case ALPNData:
			n.link(conn, low, guard, leave)
		}
	case n.bare && first[0] == 0:
		guard.trust()
		leave()
		n.control(relay.NewLowConn(guard, false, first[:]), cfg)
	case first[0] == wire.Preamble[0] && (cfg.AllowPlain || n.runsPlain()):
		low := relay.NewLowConn(guard, false, first[:])
		n.link(low, low, guard, leave)
	}
}

// link serves an incoming data connection.
func (n *Node) link(conn net.Conn, low *relay.LowConn, guard *stranger, leave func()) {
	b, challenge, err := relay.AcceptLink(conn)
	if err != nil {
		return
	}
	status := byte(wire.LinkHelloRefused)
	var s *session
	hello, err := wire.ParseLinkHello(b)
	if err == nil {
		n.mu.Lock()
		s = n.sessions[hello.Transfer]
		n.mu.Unlock()
	}
	if s != nil {
		status = s.openFeed(hello, b, challenge, conn)
	}
	if status == wire.LinkHelloOK {
		guard.trust()
		leave()
		n.log.Debug("link accepted", "transfer", s.id.String(), "peer", conn.RemoteAddr().String(), "plain", s.plain)
		defer s.feedClosed(conn)
	}
	if _, err := conn.Write([]byte{status}); err != nil || status != wire.LinkHelloOK {
		if s != nil && status == wire.LinkHelloOK {
			s.step(member.EvFeedEnd{Link: hello.Link, Generation: hello.Generation, Fin: false, Code: wire.CodeNetwork, Reason: "connection lost"})
		}
		return
	}
	guard.SetDeadline(time.Time{})
	s.receive(relay.NewLinkReader(conn, low, guard.Conn), hello)
}

// control serves a control connection: greeting, then a new transfer or one that
// is resumed.
func (n *Node) control(conn net.Conn, cfg *NodeConfig) {
	sender := ""
	if tc, secure := conn.(*tls.Conn); secure && cfg.SenderName != nil {
		sender = cfg.SenderName(tc.ConnectionState())
	}
	ctrl := newControl(conn)
	defer func() {
		ctrl.finish()
		<-ctrl.done
	}()
	g, w := n.greeting(ctrl, sender)
	if w == nil {
		return
	}
	if w.Version == 0 {
		ctrl.send(w)
		return
	}
	s, o := n.lookup(g.Transfer)
	switch {
	case s != nil && !s.isOpen():
		w.State, w.Reason = wire.StateBusy, "the transfer is still being offered"
	case s != nil:
		w.State = wire.StateRunning
	case o != nil:
		w.State, w.Digest = string(o.State), o.Digest
		if o.Err != nil {
			w.Reason = o.Err.Error()
		}
	case !g.Resume:
		w.State = wire.StateNew
	}
	if w.State == wire.StateRunning && g.Resume {
		s.attach(ctrl, w)
		s.listen(ctrl)
		return
	}
	ctrl.send(w)
	if s != nil {
		return
	}
	// Also who asked for a transfer that is not here may go on to offer it.
	m, err := ctrl.read(timings.startLimit)
	if bad := n.unread(ctrl, err); bad != nil {
		n.refuse(ctrl, &wire.Error{Code: wire.CodeVersion, Err: bad})
		return
	}
	offer, ok := m.(*wire.Offer)
	if err != nil || !ok {
		return
	}
	r := Request{Transfer: g.Transfer.String(), Sender: sender, Addr: conn.RemoteAddr().String(), Node: wire.Printable(g.Node), Blobs: offer.Blobs, Meta: offer.Meta}
	admitted := ctrl.stay()
	s, ne := n.admit(cfg, ctrl, g.Transfer, r, offer.Plain)
	admitted()
	if ne != nil {
		n.log.Warn("transfer refused", "sender", wire.Printable(sender), "peer", r.Addr, "transfer", r.Transfer, "reason", ne.Error())
		n.refuse(ctrl, ne)
		return
	}
	s.listen(ctrl)
}

// refuse answers an offer with an error.
func (n *Node) refuse(ctrl *control, ne *wire.Error) {
	ctrl.send(&wire.Answer{Code: ne.Code, Reason: ne.Error()})
	ctrl.drain()
}

// greeting reads HELLO and makes the WELCOME for it; nil when nobody greets. One that has no
// version in common gets version 0, and the reason as it should stand in its row for us.
func (n *Node) greeting(ctrl *control, sender string) (*wire.Hello, *wire.Welcome) {
	m, err := ctrl.read(timings.startLimit)
	g, ok := m.(*wire.Hello)
	w := &wire.Welcome{Instance: n.instance, State: wire.StateUnknown}
	var bad *wire.MalformedError
	switch {
	case errors.As(err, &bad):
		g = &wire.Hello{Min: bad.Said.Min, Max: bad.Said.Max}
	case err != nil || !ok:
		return nil, nil
	default:
		w.Version = wire.Common(g.Min, g.Max)
	}
	switch w.Version {
	case 0:
		software := ""
		if bad != nil {
			software = bad.Said.Software
		}
		theirs, ours := versions(g.Min, g.Max, software), ownVersions(n.config().Software)
		n.log.Warn("refused", "peer", ctrl.conn.RemoteAddr().String(), "sender", wire.Printable(sender), "reason", "the server speaks "+theirs+", this is "+ours)
		w.Reason = "speaks " + ours + ", this is " + theirs
	default:
		w.Software, w.Platform = n.config().Software, n.config().Platform
	}
	ctrl.version = w.Version
	return g, w
}

// unread logs a message of the server that cannot be read, and returns what to answer. It is nil
// when err is anything else.
func (n *Node) unread(ctrl *control, err error) error {
	bad := unread(err, ctrl.version, "", n.config().Software)
	if bad != nil {
		bad = fmt.Errorf("the server %w", bad)
		n.log.Warn("not understood", "peer", ctrl.conn.RemoteAddr().String(), "reason", wire.Printable(bad.Error()))
	}
	return bad
}

func (n *Node) lookup(id wire.ID) (*session, *Outcome) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if s := n.sessions[id]; s != nil {
		return s, nil
	}
	for i := range n.outcomes {
		if n.outcomes[i].id == id {
			return nil, &n.outcomes[i].Outcome
		}
	}
	return nil, nil
}

// ended takes a session out of the table and remembers its outcome.
func (n *Node) ended(s *session, o Outcome, remember bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.sessions, s.id)
	n.endings++
	if remember {
		n.outcomes = append(n.outcomes, keptOutcome{s.id, o})
		if len(n.outcomes) > keptOutcomes {
			n.outcomes = n.outcomes[1:]
		}
	}
	n.changed.Broadcast()
}

// Shutdown stops accepting new transfers and waits for running ones until ctx
// ends, then aborts those. It returns nil when nothing had to be aborted, else an
// *AbortedError.
func (n *Node) Shutdown(ctx context.Context) error {
	n.mu.Lock()
	n.closing = true
	for l := range n.listeners {
		l.Close()
	}
	stop := context.AfterFunc(ctx, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.changed.Broadcast()
	})
	defer stop()
	for _, s := range n.sessions {
		s.yield()
	}
	for len(n.sessions) > 0 && ctx.Err() == nil {
		n.changed.Wait()
	}
	var err error
	if len(n.sessions) > 0 {
		err = &AbortedError{len(n.sessions)}
		for _, s := range n.sessions {
			go s.kill()
		}
	}
	for len(n.sessions) > 0 {
		n.changed.Wait()
	}
	for c := range n.conns {
		c.hush() // what was said last is still written
	}
	n.mu.Unlock()
	n.work.Wait()
	return err
}

func coded(err error, code wire.Code) *wire.Error {
	var ne *wire.Error
	if errors.As(err, &ne) {
		return ne
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG) {
		code = wire.CodeSpace
	}
	if errors.Is(err, fs.ErrExist) {
		code = wire.CodePolicy // the target has something that is not to be replaced
	}
	return &wire.Error{Code: code, Err: err}
}
