package ring

import (
	"errors"
	"fmt"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/member"
	"github.com/dolly-img/dolly-img/ring/internal/relay"
	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// This file has how a session ends.

// lostFor ends a session whose server is there, but cannot be understood.
func (s *session) lostFor(ctrl *control, err *wire.Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctrl == ctrl && !s.over {
		s.giveUp(err)
	}
}

// abandon ends a session whose server did not come back.
func (s *session) abandon() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctrl != nil || s.over {
		return
	}
	s.giveUp(wire.Errorf(wire.CodeAbandoned, "lost the server"))
}

// kill ends a session because the node stops.
func (s *session) kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.giveUp(wire.Errorf(wire.CodeShutdown, "the node is stopping"))
}

// giveUp fails the session. If COMMIT has come it only lets go of it, because publishing
// then goes on to its end and decides the outcome. mu is held.
func (s *session) giveUp(err *wire.Error) {
	if s.m.Phase() >= member.Publishing {
		s.end()
		return
	}
	s.perform(s.m.Step(member.EvFailure{Err: err}))
}

// end releases everything, once. mu is held.
func (s *session) end() {
	if s.over {
		return
	}
	s.over = true
	if s.orphan != nil {
		s.orphan.Stop()
	}
	s.stop()
	s.storing.stepped.Broadcast()
	s.relay.Close(relay.ErrClosed)
	if s.feed != nil {
		s.feed.Close()
	}
	go s.cleanUp()
}

func (s *session) cleanUp() {
	s.work.Wait()
	s.relay.Release()
	var problem error
	// No other goroutine works any more, but messages of the server may still come.
	good := map[int]int64{}
	s.mu.Lock()
	keep := s.m.Keeps() && s.m.Phase() != member.Committed
	for b := range s.storing.writers {
		if s.m.Keeps() {
			good[b] = s.m.Position(b).Good
		}
	}
	s.mu.Unlock()
	for b, w := range s.storing.writers {
		problem = errors.Join(problem, w.Abort(good[b]))
	}
	if s.extra.Keeper != nil && keep {
		s.extra.Keep()
	}
	if s.extra.Closer != nil {
		problem = errors.Join(problem, s.extra.Close())
	}
	s.mu.Lock()
	o := Outcome{State: Failed, Bytes: s.m.Received(), Seconds: round(time.Since(s.begun))}
	switch {
	case s.m.Phase() == member.Committed:
		o.State, o.Digest = Committed, s.m.Digest(len(s.req.Blobs)-1).String()
		if s.m.InPlace() && !wire.Moved(s.req.Blobs, s.m.Received()) { // so that both say the same, it and the server's row
			o.State = Held
		}
	case s.m.Failure() != nil:
		o.Err = s.m.Failure()
	default:
		o.Err = relay.ErrClosed
	}
	s.mu.Unlock()
	for _, f := range s.forget {
		f()
	}
	// The session leaves the table before the log says that it ended. Shutdown waits for both.
	s.node.work.Add(1)
	var aborted *member.AbortError
	if errors.As(o.Err, &aborted) {
		o.Asked = aborted.Code == wire.CodeAsked
		o.Interrupted = aborted.Code == wire.CodeInterrupted || aborted.Code == wire.CodeSource
	}
	o.Refused = !s.opened
	s.node.ended(s, o, s.opened)
	s.mu.Lock()
	if s.cleaned = true; s.ctrl != nil {
		s.ctrl.release()
	}
	s.mu.Unlock()
	if s.opened {
		s.logEnd(o, problem)
	}
	s.node.work.Done()
	if s.sink != nil && s.cfg.Finished != nil { // also when the sink refused the offer
		s.cfg.Finished(s.req, o)
	}
}

// logEnd writes the audit line.
func (s *session) logEnd(o Outcome, problem error) {
	target := ""
	if s.extra.Stringer != nil {
		target = s.extra.String()
	}
	state := string(o.State)
	if o.Asked {
		state = "asked"
	}
	log := s.node.log.With("target", target, "sender", wire.Printable(s.req.Sender), "peer", s.req.Addr, "transfer", s.req.Transfer,
		"state", state, "digest", o.Digest, "bytes", o.Bytes, "seconds", o.Seconds)
	switch {
	case problem != nil:
		log.Warn("transfer: cleaning up failed", "error", problem)
	case o.Asked:
		log.Info("transfer", "reason", wire.Printable(o.Err.Error()))
	case o.Err != nil:
		log.Warn("transfer", "reason", wire.Printable(fmt.Sprint(o.Err)))
	default:
		log.Info("transfer")
	}
}
