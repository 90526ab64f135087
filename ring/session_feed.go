package ring

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"

	"github.com/dolly-img/dolly-img/ring/internal/member"
	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// openFeed decides on an incoming link.
func (s *session) openFeed(h wire.LinkHello, b, challenge []byte, conn net.Conn) byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over || s.secret == nil || !wire.Proves(b, s.secret, challenge) {
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

// receive is the reading goroutine of a link: it checks each frame and forwards
// it before it reads the next.
func (s *session) receive(l *linkReader, h wire.LinkHello) {
	s.reading <- struct{}{} // a channel: the one before may still wait for time to pass
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
			reason = cause(err).Error()
		}
	}
	s.step(member.EvFeedEnd{Link: h.Link, Generation: h.Generation, Fin: fin, Code: code, Reason: reason})
}

func (s *session) frames(l *linkReader, gen uint32) (fin bool, err error) {
	var hdr [wire.HeaderSize]byte
	sure := 0
	l.low.meter = &s.relay.meter.relay
	l.low.meter.is(waitCPU)
	defer l.low.meter.is(waitIn) // the next one's
	for {
		h, err := l.header(&hdr, sure)
		if err != nil {
			return false, err
		}
		if h.Type == wire.Fin {
			if wire.Sum(&hdr, nil) != h.CRC {
				return false, wire.Errorf(wire.CodeCRC, "the final record was damaged on the link")
			}
			return true, nil
		}
		buf, err := s.relay.reserve(h.Length)
		if err != nil {
			return false, err
		}
		if err := l.payload(&hdr, h, buf); err != nil {
			return false, err
		}
		if s.limit != nil {
			s.relay.meter.relay.is(waitLimit)
			if err := s.limit.WaitN(s.ctx, h.Length); err != nil {
				return false, err
			}
			s.relay.meter.relay.is(waitCPU)
		}
		out := s.step(member.EvFrame{Generation: gen, Blob: h.Blob, Offset: h.Offset, Length: h.Length})
		if _, ok := out[0].(member.ActAccept); !ok {
			return false, wire.Errorf(wire.CodeProtocol, "unexpected bytes of blob %d at %d", h.Blob, h.Offset)
		}
		if err := s.relay.put(&hdr, buf, h.Blob, h.Offset); err != nil {
			return false, err
		}
		// The rest of a blob of known size is sure to come. To wait for more than
		// one frame of it would only delay that frame.
		sure = int(min(int64(h.Length), max(0, s.req.Blobs[h.Blob].Size-h.Offset-int64(h.Length))))
	}
}

// tryReach opens a link to another node up to its challenge, and says whether that went well.
func (s *session) tryReach(p *wire.Probe) {
	ev := member.EvReached{Probe: p.Probe}
	if err := s.node.net.reach(s.ctx, p.Addrs, s.linkTLS(p.Name)); err != nil {
		ev.Code, ev.Reason = wire.CodeNetwork, cause(err).Error()
	}
	s.step(ev)
}

// linkTLS is the configuration of links to a node; nil when they are plain.
func (s *session) linkTLS(name string) *tls.Config {
	if s.plain {
		return nil
	}
	return s.node.config().DataTLS(name) // of now: links use the newest keys
}

// dialLink feeds a successor. The plain and the TLS form differ only in conf.
func (s *session) dialLink(d *wire.Dial) {
	conf := s.linkTLS(d.Name)
	report := func(link, gen uint32, state string, code wire.Code, reason string) {
		s.step(member.EvLink{Link: link, Generation: gen, State: state, Code: code, Reason: reason})
	}
	err := s.relay.feed(s.ctx, d, func(ctx context.Context, h wire.LinkHello) (linkWriter, error) {
		h.Transfer = s.id
		return s.node.net.openLink(ctx, d.Addrs, conf, h, d.Secret)
	}, report)
	if err != nil {
		go report(d.Link, d.Generation, wire.LinkDown, wire.CodeProtocol, err.Error())
	}
}
