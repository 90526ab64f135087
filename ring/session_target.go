package ring

import (
	"bytes"
	"encoding/json"

	"github.com/dolly-img/dolly-img/ring/internal/member"
	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// target returns what the Sink says that it would overwrite, in the encoding in which it travels, and nil if it overwrites
// nothing.
func (s *session) target() (json.RawMessage, error) {
	if s.extra.Targeter == nil {
		return nil, nil
	}
	said, err := s.extra.Target(s.ctx)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(said)
	if err == nil && (len(b) > wire.MaxTarget || b[0] != '{') {
		err = wire.Errorf(wire.CodeStore, "the target is described in %d bytes that are no object of at most %d", len(b), wire.MaxTarget)
	}
	return b, err
}

// unchanged returns an error if what would be overwritten is not any more what somebody confirmed.
func (s *session) unchanged() *wire.Error {
	now, err := s.target()
	if err != nil {
		return coded(err, wire.CodePolicy)
	}
	if !bytes.Equal(now, s.answered) {
		return wire.Errorf(wire.CodePolicy, "what would be overwritten has changed since the plan was confirmed: now it is %s", wire.Printable(string(now)))
	}
	return nil
}

// writes counts more that may be overwriting the target from now on, or less, and reports whether that is still permitted: what a session
// that has failed said of its target stays true.
func (s *session) writes(more int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if more > 0 && s.m.Phase() >= member.Failed {
		return false
	}
	s.storing.writing += more
	return true
}

// targetState returns what the target is for a report. That of a session that has failed will stay what it is. mu is held.
func (s *session) targetState() wire.TargetState {
	state := wire.TargetState(s.extra.TargetState())
	if state == wire.TargetUntouched && s.storing.writing > 0 && s.m.Phase() >= member.Failed {
		return wire.TargetUnknown
	}
	return state
}
