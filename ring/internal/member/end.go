package member

import "github.com/dolly-img/dolly-img/ring/internal/wire"

// This file has how a node's part ends before it has committed.

// ended takes BYE or ABORT.
func (m *Machine) ended(msg wire.Message) {
	why, keep := error(errEnded), m.keep
	abort, aborted := msg.(*wire.Abort)
	if aborted {
		why, keep = &AbortError{abort.Code, wire.Cut(abort.Reason)}, abort.Keep
	}
	if m.phase < Publishing { // in a later phase the node's own failure has decided what is kept
		overwrites := m.phase >= Started && len(m.target) > 0
		m.keep = keep
		m.phase, m.failed = Failed, &wire.Error{Code: wire.CodeAbandoned, Err: why}
		if aborted && overwrites {
			m.sayFailed() // the server may not know what the target stays
		}
	}
	m.do(ActRelease{})
}

func (m *Machine) fail(err *wire.Error) {
	if m.phase >= Committed {
		return
	}
	m.phase, m.failed = Failed, err
	m.keep = err.Code == wire.CodeAbandoned || err.Code == wire.CodeShutdown // then nothing is wrong with what is there
	m.sayFailed()
	m.do(ActRelease{})
}

func (m *Machine) sayFailed() {
	m.say(m.Report())
	m.say(&wire.Fail{Code: m.failed.Code, Reason: wire.Cut(m.failed.Error())})
}
