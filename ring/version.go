package ring

import (
	"errors"
	"fmt"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// This file words what two ends say when one does not understand the other (PROTOCOL.md section 4).

// ProtocolMin and ProtocolMax are the oldest and the newest version of the protocol that this package
// speaks, and it speaks all between them.
const (
	ProtocolMin = wire.MinVersion
	ProtocolMax = wire.Version
)

// versions words what one end speaks: "protocol 1 to 2 (dolly-img 1.2.0)".
func versions(least, most int, software string) string {
	s := "an unknown protocol"
	switch {
	case most <= 0:
	case least == most || least <= 0:
		s = fmt.Sprintf("protocol %d", most)
	default:
		s = fmt.Sprintf("protocol %d to %d", least, most)
	}
	if software != "" {
		s += " (" + wire.Printable(software) + ")"
	}
	return s
}

// ownVersions words which versions this end speaks.
func ownVersions(software string) string { return versions(ProtocolMin, ProtocolMax, software) }

// unread turns err into one that says that the peer, with which a version was agreed on, sent a message
// that is none of that version. It returns nil when err is anything else.
func unread(err error, version int, software, own string) error {
	var bad *wire.MalformedError
	if !errors.As(err, &bad) {
		return nil
	}
	return fmt.Errorf("sent a message that cannot be read (%w): it speaks %s, this is %s", bad, versions(version, version, software), ownVersions(own))
}

// misgreeted turns the answer to a HELLO into an error that says which versions the node speaks. The
// answer is err where it could not be read, else w, a WELCOME of a version that was not offered.
// least is the oldest that was offered. misgreeted returns nil when the answer is anything else.
func misgreeted(w *wire.Welcome, err error, least int, software string) error {
	own := versions(least, ProtocolMax, software)
	var bad *wire.MalformedError
	switch {
	case errors.As(err, &bad):
		v := bad.Said.Version
		return &refusal{because(fmt.Sprintf("speaks %s, this is %s", versions(v, v, bad.Said.Software), own))}
	case w == nil || wire.Common(w.Version, w.Version) != 0:
		return nil
	case w.Version == 0 && w.Reason != "":
		return &refusal{because(wire.Printable(w.Reason))}
	case w.Version == 0: // a node of version 1 does not say what it speaks
		return &refusal{because("speaks no protocol version in common with this, " + own)}
	}
	return &refusal{because(fmt.Sprintf("speaks %s, this is %s", versions(w.Version, w.Version, w.Software), own))}
}

// tooOld is the cause of a row of a node that does not know what it was asked, or told, and which came with a version.
func tooOld(w *wire.Welcome, since int) Cause {
	return Cause{Fault: FaultOld, Text: fmt.Sprintf("speaks %s, and such a question is of protocol %d: upgrade the nodes first", versions(w.Version, w.Version, w.Software), since)}
}
