package ring

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"

	"github.com/dolly-img/dolly-img/ring/internal/member"
	"github.com/dolly-img/dolly-img/ring/internal/relay"
	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// What a node feeds in one transfer at most: each link takes a socket and up to 600 KiB, and each need
// 16 bytes, by which sets of leaves count, too (relay.Weight).
const (
	maxLinks = 16
	maxNeeds = 4 * wire.MaxBlobs
)

// openFeed decides on an incoming link.
func (s *session) openFeed(h wire.LinkHello, b, challenge []byte, conn net.Conn) byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over || s.secret == nil || !h.Proves(b, s.secret, challenge) {
		return wire.LinkHelloRefused
	}
	if _, tls := conn.(*tls.Conn); tls == s.plain {
		return wire.LinkHelloRefused
	}
	out := s.m.Step(member.EvOpen{Link: h.Link, Generation: h.Generation})
	if r, ok := out[0].(member.ActRefuse); ok {
		return r.Status
	}
	s.feed, s.secret = conn, nil // a secret opens one link
	s.work.Add(1)
	return wire.LinkHelloOK
}

// feedClosed undoes openFeed once the connection is no longer read.
func (s *session) feedClosed(conn net.Conn) {
	s.mu.Lock()
	if s.feed == conn {
		s.feed = nil
	}
	s.mu.Unlock()
	s.work.Done()
}

// receive is the reading goroutine of a link. It checks each frame and forwards it before
// it reads the next.
func (s *session) receive(l *relay.LinkReader, h wire.LinkHello) {
	s.reading <- struct{}{} // a channel: while a goroutine waits for a mutex, the fake time of tests stands still
	defer func() { <-s.reading }()
	fin, err := s.frames(l, h.Generation)
	code, reason := wire.CodeNone, ""
	if !fin {
		code, reason = wire.CodeNetwork, "connection lost"
		var ne *wire.Error
		var fe *wire.FrameError
		switch {
		case errors.As(err, &ne):
			code, reason = ne.Code, ne.Error()
		case errors.As(err, &fe):
			code, reason = wire.CodeProtocol, fe.Error()
		case err == io.ErrUnexpectedEOF:
			reason = "ended without its final record"
		case err != nil:
			reason = relay.Bare(err).Error()
		}
	}
	s.step(member.EvFeedEnd{Link: h.Link, Generation: h.Generation, Fin: fin, Code: code, Reason: reason})
}

// frames takes the frames of a link. fin says that the link ended with the final record.
func (s *session) frames(l *relay.LinkReader, gen uint32) (fin bool, err error) {
	return s.relay.Receive(s.ctx, l, s.limit, func(h wire.Header) bool {
		s.awaitMarks(gen, h.Blob)
		out := s.step(member.EvFrame{Generation: gen, Blob: h.Blob, Offset: h.Offset, Length: h.Length, Zero: h.Type == wire.Zero})
		_, ok := out[0].(member.ActAccept)
		return ok
	})
}

// awaitMarks waits while too many sums wait for marks: zeros take no time, and the server may be busy with other things than marks. The
// link of generation gen is then not read. Sums that are dropped instead would keep the node from ever saying that more is good, and
// the server from sending more marks.
func (s *session) awaitMarks(gen, blob uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.crowded(blob, 0) && s.m.Generation() == gen {
		s.storing.stepped.Wait()
	}
}

// awaitSums waits as awaitMarks does, before more of a blob is hashed, of which so many sums are not told yet. Sums of leaves that were
// compared take no time, and those of others that are there may come quicker than the server reads.
func (s *session) awaitSums(ctx context.Context, blob int, untold *atomic.Int32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	crowded := func() bool { return ctx.Err() == nil && s.crowded(uint32(blob), untold.Load()) }
	if !crowded() {
		return ctx.Err()
	}
	defer context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.storing.stepped.Broadcast()
	})()
	for crowded() {
		s.storing.stepped.Wait() // each sum that is told is a step
	}
	return ctx.Err()
}

// crowded reports whether no more of a blob may be taken, because so many sums wait for marks as two windows of them have, with those of
// the blob that are not told yet. As many blobs are hashed at once as there are hashers, so that the machine keeps four times as many. mu
// is held.
func (s *session) crowded(blob uint32, untold int32) bool {
	waiting := int64(s.m.Unjudged(blob)) + int64(untold)
	return s.storing.pages && waiting >= 2*s.node.pool.Ahead()-maxHashers && !s.over && !s.m.Resetting()
}

// tryReach opens a link to another node up to its challenge, and tells the machine how that went.
func (s *session) tryReach(p *wire.Probe) {
	ev := member.EvReached{Probe: p.Probe}
	if err := s.node.net.reach(s.ctx, member.Used(p.Addrs), s.linkTLS(p.Name)); err != nil {
		ev.Code, ev.Reason = wire.CodeNetwork, relay.Bare(err).Error()
	}
	s.step(ev)
}

// linkTLS returns the configuration of links to a node, or nil when they are plain.
func (s *session) linkTLS(name string) *tls.Config {
	if s.plain {
		return nil
	}
	return s.node.config().DataTLS(name) // not s.cfg, because links use the newest keys
}

// dialLink feeds a successor. Plain and TLS links differ only in conf.
func (s *session) dialLink(d *wire.Dial) {
	conf := s.linkTLS(d.Name)
	report := func(link, gen uint32, state string, code wire.Code, reason string) {
		s.step(member.EvLink{Link: link, Generation: gen, State: state, Code: code, Reason: reason})
	}
	if links, needs := s.relay.Feeding(); links >= maxLinks || needs+relay.Weight(d) > maxNeeds {
		go report(d.Link, d.Generation, wire.LinkDown, wire.CodeBusy, fmt.Sprintf("feeds %d links already, of %d blobs", links, needs))
		return
	}
	err := s.relay.Feed(s.ctx, d, func(ctx context.Context, h wire.LinkHello) (relay.LinkWriter, error) {
		h.Transfer = s.id
		return s.node.net.openLink(ctx, member.Used(d.Addrs), conf, h, d.Secret)
	}, report)
	if err != nil {
		go report(d.Link, d.Generation, wire.LinkDown, wire.CodeProtocol, err.Error())
	}
}
