package ring

import (
	"bytes"
	"encoding/json"

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
