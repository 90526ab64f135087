package ring

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
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

// keptOutcomes is of how many ended transfers a node remembers the outcome.
const keptOutcomes = 64

// Node takes part in transfers on one or more listeners. It tells connections apart and owns the
// table of sessions, one for each transfer.
type Node struct {
	cfg      atomic.Pointer[NodeConfig] // what it points to is replaced, and never changed
	net      transport
	instance wire.ID
	pool     *relay.Pool
	gate     gate
	lobby    *lobby
	tenders  tenders
	memory   controlMemory
	// authenticate finds out what a new connection is, of which first has been read, and makes its
	// transport. It is byTLS, unless a simulation that cannot afford TLS puts something before it.
	authenticate func(guard *stranger, first []byte, cfg *NodeConfig) (peer, bool)
	log          *slog.Logger

	mu        sync.Mutex
	changed   sync.Cond // signalled when a session ends
	sessions  map[wire.ID]*session
	offered   int           // bytes of the offers of transfers that run or wait
	crowded   chan struct{} // has a place for an offer that waits to be counted there
	endings   int           // how many transfers ended
	outcomes  []keptOutcome // the newest is the last
	listeners map[net.Listener]bool
	conns     map[*stranger]bool
	closing   bool
	work      sync.WaitGroup
}

type keptOutcome struct {
	id    wire.ID
	owner owner
	Outcome
}

// NewNode checks cfg and makes a node, which does nothing until Serve. The error says what in cfg is
// missing or contradicts itself.
func NewNode(cfg NodeConfig) (*Node, error) {
	n := &Node{
		net: tcp, pool: relay.NewPool(0, relay.Sizes{}), log: cfg.Log, memory: nodeMemory(), lobby: newLobby(), tenders: newTenders(), crowded: make(chan struct{}, 1),
		sessions: map[wire.ID]*session{}, listeners: map[net.Listener]bool{}, conns: map[*stranger]bool{},
	}
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	if err := n.Reconfigure(cfg); err != nil {
		return nil, err
	}
	n.authenticate = n.byTLS
	n.changed.L = &n.mu
	rand.Read(n.instance[:])
	return n, nil
}

// Serve accepts connections on l until Shutdown, and then returns nil. It returns the error of l when
// that is closed by somebody else. Serve may be called for several listeners at once.
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
				// Most likely the process is out of descriptors, and others will be closed.
				delay = min(max(2*delay, 5*time.Millisecond), time.Second)
				n.log.Warn("accept", "error", err)
				time.Sleep(delay)
				continue
			}
			return err
		}
		delay = 0
		leave := n.gate.enter(conn)
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

// peer is a connection whose transport is up. On the control plane it is a sender's; on the data plane
// it has to prove yet which link it is.
type peer struct {
	plane string // ALPNControl or ALPNData
	conn  net.Conn
	low   *relay.LowConn // what conn reads from; without TLS it is conn itself
}

// handle authenticates a connection and serves it on its plane until it ends.
func (n *Node) handle(guard *stranger, leave func()) {
	guard.SetDeadline(time.Now().Add(timings.startLimit))
	var first [1]byte
	if _, err := guard.Read(first[:]); err != nil {
		return
	}
	cfg := n.config()
	p, ok := n.authenticate(guard, first[:], cfg)
	switch {
	case !ok:
	case p.plane == ALPNControl:
		guard.trust()
		leave()
		n.control(p.conn, guard, cfg)
	case p.plane == ALPNData:
		n.link(p.conn, p.low, guard, leave)
	}
}

// byTLS takes a TLS connection whose peer shows a certificate with the role of its plane, and a plain
// link where the policy allows it.
func (n *Node) byTLS(guard *stranger, first []byte, cfg *NodeConfig) (peer, bool) {
	switch {
	case first[0] == 0x16: // a TLS ClientHello
		low := relay.NewLowConn(guard, true, first)
		conn := tls.Server(low, cfg.TLS)
		if err := conn.Handshake(); err != nil {
			if !isTimeout(err) {
				n.log.Warn("refused", "peer", guard.RemoteAddr().String(), "reason", wire.Printable(err.Error()))
			}
			return peer{}, false
		}
		return peer{conn.ConnectionState().NegotiatedProtocol, conn, low}, true
	case first[0] == wire.Preamble[0] && (cfg.AllowPlain || n.runsPlain()):
		low := relay.NewLowConn(guard, false, first)
		return peer{ALPNData, low, low}, true
	}
	return peer{}, false
}

// link serves an incoming data connection.
func (n *Node) link(conn net.Conn, low *relay.LowConn, guard *stranger, leave func()) {
	preamble, b, challenge, err := relay.AcceptLink(conn)
	if err != nil {
		return
	}
	status := byte(wire.LinkHelloRefused)
	var s *session
	hello, err := wire.ParseLinkHello(preamble, b)
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
	s.receive(relay.NewLinkReader(conn, low, guard.Conn, hello), hello)
}

// lookup finds a transfer for the server that began it. Others are told of none, though they may know its id.
func (n *Node) lookup(id wire.ID, by owner) (*session, *Outcome) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if s := n.sessions[id]; s != nil && s.owner == by {
		return s, nil
	}
	for i := range n.outcomes {
		if n.outcomes[i].id == id && n.outcomes[i].owner == by {
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
	n.offered -= s.offered
	n.endings++
	if remember {
		n.outcomes = append(n.outcomes, keptOutcome{s.id, s.owner, o})
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
		c.hush() // which still writes what was said last
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
	if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.EIO) {
		code = wire.CodeStore // files that are open now will be closed, and a disk that fails says nothing about policy: nobody has refused anything
	}
	if errors.Is(err, fs.ErrExist) {
		code = wire.CodePolicy // the target has something that must not be replaced
	}
	if refused := new(RefusedError); errors.As(err, &refused) {
		code = wire.Code(refused.Why)
	}
	return &wire.Error{Code: code, Err: err}
}
