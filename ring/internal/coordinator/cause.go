package coordinator

import (
	"fmt"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// Kind says in one word what happened to a node. The coordinator goes by it, never by the words of a
// Cause, which are for people. The values are told to programs: see package ring, Row.Code.
type Kind string

// The kinds of causes, append only.
const (
	KindNone         Kind = ""
	KindContact      Kind = "contact"       // it cannot be talked to: Fault says why
	KindSaid         Kind = "said"          // what the node says itself: Said has more
	KindBusy         Kind = "busy"          // it waits for another transfer to end
	KindTwin         Kind = "same-machine"  // two names are one machine
	KindUnanswered   Kind = "unanswered"    // the offer was not answered
	KindSpace        Kind = "space"         // not enough room
	KindProtocol     Kind = "protocol"      // it said what a node may not say
	KindLost         Kind = "lost"          // its control connection broke, or it restarted
	KindReturned     Kind = "returned"      // it was lost, and came back
	KindLink         Kind = "link"          // a link into it was lost: Link
	KindUnfed        Kind = "unfed"         // nobody could feed it, not even the server
	KindUnreached    Kind = "unreached"     // no node reaches it, and the server feeds enough others
	KindChanged      Kind = "changed"       // bytes were changed on a link: Link
	KindChangedTwice Kind = "changed-twice" // the second link that it is an end of changed bytes: Link
	KindFalls        Kind = "falls"         // bytes do not stay as they are sent
	KindSlow         Kind = "slow"          // it is slower than the others, by its link where Link is set
	KindMute         Kind = "mute"          // it is alive, and does not say what it has to say
	KindStuck        Kind = "stuck"         // it does nothing with what it is sent
	KindMismatch     Kind = "mismatch"      // its digest is not the source's
	KindUnconfirmed  Kind = "unconfirmed"   // it was told to commit, and did not say that it has
	KindInterrupted  Kind = "interrupted"   // somebody ended the transfer
	KindSource       Kind = "source"        // the source failed or changed
	KindUnplanned    Kind = "unplanned"     // it is not in the plan that was confirmed, or nobody confirmed the plan
)

// Fault classifies why a node cannot be talked to. The driver, which talks to nodes, knows more of them.
type Fault string

// The faults that the coordinator itself tells of.
const (
	FaultSilent Fault = "silent" // nothing comes back from its address
	FaultHangs  Fault = "hangs"  // it has the connection, and says nothing
)

// Cause is why a node is in its state, or what happened to it. Text, address and text together are the
// reason as people read it.
type Cause struct {
	Kind  Kind
	Fault Fault     // of KindContact and KindLost
	Said  wire.Code // of KindSaid
	Link  string    // that it is about, as in "n1 -> n2"

	Text  string // up to the address, or all of it
	Addr  string // of the node; "" when the reason names none
	After string // what follows the address
}

// Code is the cause in one word, for programs.
func (c Cause) Code() string {
	switch {
	case c.Kind == KindContact && c.Fault != "":
		return string(c.Fault)
	case c.Kind == KindSaid && c.Said != wire.CodeNone:
		return string(c.Said)
	}
	return string(c.Kind)
}

func (c Cause) String() string { return c.Text + c.Addr + c.After }

// In is the cause with what it led to before it, which is of another kind.
func (c Cause) In(kind Kind, what string) Cause {
	c.Kind, c.Text = kind, what+c.Text
	return c
}

// orCause is c, or another where c says nothing.
func (c Cause) orCause(other Cause) Cause {
	if c != (Cause{}) {
		return c
	}
	return other
}

// because makes a cause of its kind and what fmt.Sprintf makes.
func because(kind Kind, format string, args ...any) Cause {
	return Cause{Kind: kind, Text: fmt.Sprintf(format, args...)}
}

// Said is the cause that a node gives itself; it is the zero Cause when the node gives none.
func Said(code wire.Code, reason string) Cause {
	if reason == "" {
		return Cause{}
	}
	return Cause{Kind: KindSaid, Said: code, Text: reason}
}

// linkLost says why a link was lost.
func linkLost(link, why string) Cause {
	return Cause{Kind: KindLink, Link: link, Text: "link " + link + ": " + why}
}

// changed says that a link changed bytes.
func changed(link string) Cause {
	return Cause{Kind: KindChanged, Link: link, Text: "bytes were changed on link " + link}
}

// twice makes of that the cause of a node for which it was the second link.
func (c Cause) twice() Cause {
	c.Kind, c.Text = KindChangedTwice, c.Text+", the second of its links"
	return c
}

// demoted says of a slow node that it is served behind the others.
func (c Cause) demoted() Cause {
	c.Text += "; served behind the others"
	return c
}

// answers says in which state a node is that was to be in another.
func answers(state string) Cause { return because(KindSaid, "node answers %s", state) }

var (
	interrupted = because(KindInterrupted, "interrupted")
	unanswered  = because(KindUnanswered, "did not answer the offer")
)
