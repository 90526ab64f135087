package ring

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"

	"github.com/dolly-img/dolly-img/ring/internal/relay"
	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// How a node talks to a server until there is a session.

// control serves a control connection: greeting, then a new transfer or one that
// is resumed. It is in the lobby unless an offer or a session bounds what it takes.
func (n *Node) control(conn, guard net.Conn, cfg *NodeConfig) {
	by := clientOn(conn, cfg)
	if by.Role != RoleViewer {
		n.gate.remember(conn.RemoteAddr())
	}
	ctrl := newControl(conn, n.memory)
	ctrl.owner, ctrl.raw = ownerOf(conn), guard
	n.lobby.enter(ctrl)
	defer n.lobby.leave(ctrl)
	defer func() {
		ctrl.finish()
		<-ctrl.done
	}()
	g, w := n.greeting(ctrl, by.Name)
	if w == nil {
		return
	}
	if w.Version == 0 {
		ctrl.send(w)
		return
	}
	s, o := n.lookup(g.Transfer, ctrl.owner)
	switch {
	case s != nil && !s.isOpen():
		w.State, w.Reason = wire.StateBusy, "the transfer is still being offered"
	case s != nil:
		w.State = wire.StateRunning
	case o != nil:
		w.State, w.Digest = string(o.State), o.Digest
		if o.Err != nil {
			w.Reason = wire.Cut(o.Err.Error())
		}
	case !g.Resume:
		w.State = wire.StateNew
	}
	switch {
	case w.State == wire.StateRunning && g.Resume:
		n.lobby.leave(ctrl)
		s.attach(ctrl, w)
	case s != nil:
		ctrl.send(w)
		return
	default:
		ctrl.send(w)
		if s = n.await(ctrl, cfg, g, by); s == nil {
			return
		}
	}
	s.listen(ctrl)
	n.lobby.enter(ctrl)
	if ctrl.isReleased() {
		ctrl.linger()
	}
}

// clientOn returns who opened a control connection. Without TLS, which only a simulation does without, it is a sender.
func clientOn(conn net.Conn, cfg *NodeConfig) Client {
	by := Client{Role: RoleSender, Addr: conn.RemoteAddr().String()}
	if tc, secure := conn.(*tls.Conn); secure {
		state := tc.ConnectionState()
		by.Name, by.Role = cfg.Client(state)
		if len(state.PeerCertificates) > 0 {
			by.Certificate = state.PeerCertificates[0]
		}
	}
	return by
}

// await reads the offer of a server that was greeted, and opens a session for it, or refuses it. It answers what the
// server asks and wishes before that, or instead.
func (n *Node) await(ctrl *control, cfg *NodeConfig, g *wire.Hello, by Client) *session {
	// Also who asked for a transfer that is not here may go on to offer it. On a slow link that takes longer than
	// a server waits for a node that says nothing.
	admitted := ctrl.stay()
	defer admitted()
	m, err := ctrl.read(timings.startLimit)
	for err == nil && isQuestion(m) {
		if !n.reply(ctrl, cfg, by, m) {
			return nil
		}
		m, err = ctrl.read(timings.startLimit)
	}
	if work, ok := m.(*wire.Tend); err == nil && ok {
		n.lobby.took(ctrl)
		n.tend(ctrl, cfg, by, work)
		return nil
	}
	n.lobby.leave(ctrl)
	if bad := n.unread(ctrl, err); bad != nil {
		n.refuse(ctrl, &wire.Error{Code: wire.CodeVersion, Err: bad})
		return nil
	}
	offer, ok := m.(*wire.Offer)
	if err != nil || !ok {
		return nil
	}
	r := Request{
		Transfer: g.Transfer.String(), Sender: by.Name, Role: by.Role, Certificate: by.Certificate, Addr: by.Addr,
		Node: wire.Printable(g.Node), Blobs: offer.Blobs, Meta: offer.Meta,
	}
	s, ne := n.admit(cfg, ctrl, g.Transfer, r, offer.Plain, ctrl.size)
	admitted()
	if ne != nil {
		n.log.Warn("transfer refused", "sender", wire.Printable(by.Name), "peer", r.Addr, "transfer", r.Transfer, "reason", ne.Error())
		if cfg.Refused != nil {
			cfg.Refused(r, string(ne.Code))
		}
		n.refuse(ctrl, ne)
		return nil
	}
	return s
}

// refuse answers an offer with an error.
func (n *Node) refuse(ctrl *control, ne *wire.Error) {
	n.lobby.enter(ctrl)
	ctrl.send(&wire.Answer{Code: ne.Code, Reason: wire.Cut(ne.Error())})
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
		w.Software, w.Platform, w.NoSHA = n.config().Software, n.config().Platform, relay.NoSHA()
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
