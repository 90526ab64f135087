package wire

import (
	"slices"

	"github.com/dolly-img/dolly-img/ring/leaf"
)

// These are the oldest and the newest version of the protocol that this package speaks.
const (
	MinVersion = 1
	Version    = 8
)

// PadsSince is the oldest version that both ends of a padded link may speak. AckedSince is that of a node that tells what
// was acknowledged on the links that it feeds. LeavesSince is that of all peers of a transfer in which a blob travels
// in leaves. SetsSince is that of a node that knows sets of leaves, ZerosSince that of both ends of a link on which runs of
// zeros travel without their bytes, and TargetSince that of both ends of a control connection where a plan is confirmed
// before anything is overwritten.
const (
	PadsSince   = 4
	AckedSince  = 4
	LeavesSince = 5
	ZerosSince  = 6

	CheckedSince = 6 // of a node that tells how much it has read back, how much of what it received came as ZERO, and what its target is
	SetsSince    = 6
	PagesSince   = 6 // of a server that sends marks as a node says what is good
	TargetSince  = 6
	AsksSince    = 7 // of a node that answers ASK and WANT
	TendsSince   = 8 // of a node that answers TEND
)

// Common returns the highest version that the range of a peer has in common with ours, or 0 if there is none.
func Common(least, most int) int {
	if v := min(most, Version); v >= max(least, MinVersion) {
		return v
	}
	return 0
}

// lastOf has, by version, the highest type of message that belongs to it.
var lastOf = [Version + 1]byte{1: 21, 2: 23, 3: 23, 4: 23, 5: 23, 6: 26, 7: 30, 8: 33}

// Knows reports whether a peer that speaks a version knows messages like m.
func Knows(version int, m Message) bool { return m.kind() <= lastOf[version] }

// For returns m for a peer that speaks a version. It leaves out fields that exist since a later one. Version 0 stands for a
// peer that has no version in common with us.
func For(version int, m Message) Message {
	switch m := m.(type) {
	case *Welcome:
		if version < 3 {
			old := *m
			old.NoSHA = false
			if version < 2 {
				old.Software, old.Platform = "", ""
			}
			return &old
		}
	case *Answer:
		if version < SetsSince {
			old := *m
			old.Leaves, old.Target = nil, nil
			return &old
		}
	case *Start:
		if version < TargetSince {
			return &Start{}
		}
	case *Need:
		if version < SetsSince {
			old := *m
			old.Leaves = nil
			return &old
		}
	case *Dial:
		if version < SetsSince {
			old := *m
			old.Leaves, old.Zeros, old.Padded = nil, false, m.Padded && version >= PadsSince
			return &old
		}
	case *Report:
		if version < CheckedSince {
			return oldReport(version, m)
		}
	case *Fail:
		if version < CheckedSince && m.Code == CodeReadBack {
			old := *m
			old.Code = CodeStore
			return &old
		}
	case *Abort:
		if version < 3 {
			old := *m
			old.Code = CodeNone
			return &old
		}
	}
	return m
}

// oldReport returns a report for a peer that speaks an older version than CheckedSince.
func oldReport(version int, m *Report) *Report {
	old := *m
	old.Checked, old.Zeros, old.Target = 0, 0, ""
	if version >= AckedSince {
		return &old
	}
	old.Links = []Sending{}
	for _, l := range m.Links {
		if l.Acked = 0; !l.Ended {
			old.Links = append(old.Links, l)
		}
	}
	return &old
}

// From returns m from a peer that speaks a version, in the terms of the newest version. The error is a *MalformedError:
// m or a field of it exists only since a later version.
func From(version int, m Message) (Message, error) {
	if k := m.kind(); k > lastOf[version] {
		return nil, malformed("control message type %d is unknown in protocol %d", k, version)
	}
	if o, ok := m.(*Offer); ok && version < LeavesSince && slices.ContainsFunc(o.Blobs, leaf.In) {
		return nil, malformed("control message type %d has a blob in leaves, which protocol %d does not know", o.kind(), version)
	}
	if len(leavesOf(m)) > 0 && version < SetsSince {
		return nil, malformed("control message type %d has a field that is unknown in protocol %d", m.kind(), version)
	}
	switch target := targetOf(m); {
	case len(target) > 0 && version < TargetSince:
		return nil, malformed("control message type %d has a field that is unknown in protocol %d", m.kind(), version)
	case len(target) > MaxTarget || len(target) > 0 && target[0] != '{':
		return nil, malformed("control message type %d has a target that is no object of at most %d bytes", m.kind(), MaxTarget)
	}
	if d, ok := m.(*Dial); ok && (d.Padded && version < PadsSince || d.Zeros && version < ZerosSince) {
		return nil, malformed("control message type %d has a field that is unknown in protocol %d", d.kind(), version)
	}
	if r, ok := m.(*Report); ok && version < AckedSince && slices.ContainsFunc(r.Links, func(l Sending) bool { return l.Acked != 0 || l.Ended }) {
		return nil, malformed("control message type %d has a field that is unknown in protocol %d", r.kind(), version)
	}
	if r, ok := m.(*Report); ok && version < CheckedSince && (r.Checked != 0 || r.Zeros != 0 || r.Target != "") {
		return nil, malformed("control message type %d has a field that is unknown in protocol %d", r.kind(), version)
	}
	if a, ok := m.(*Abort); ok && version < 3 {
		if a.Code != CodeNone {
			return nil, malformed("control message type %d has a code, which is unknown in protocol %d", a.kind(), version)
		}
		// Before version 3 there is no code for the end of a check, and only this sentence tells it.
		if a.Reason == ReasonAsked {
			a.Code = CodeAsked
		}
	}
	return m, nil
}

// leavesOf returns the sets of leaves in m.
func leavesOf(m Message) []Leaves {
	switch m := m.(type) {
	case *Answer:
		return m.Leaves
	case *Need:
		return m.Leaves
	case *Dial:
		return m.Leaves
	case *Compared:
		return m.Leaves
	}
	return nil
}

// MaxTarget is how many bytes a target may have.
const MaxTarget = 4 << 10

// targetOf returns the target in m.
func targetOf(m Message) []byte {
	switch m := m.(type) {
	case *Answer:
		return m.Target
	case *Start:
		return m.Target
	}
	return nil
}

// ReasonAsked is the reason of an ABORT at the end of a check. Versions 1 and 2 know such an ABORT by it.
const ReasonAsked = "only asked"
