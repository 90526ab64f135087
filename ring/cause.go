package ring

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/relay"
)

// Fault is why a node cannot be talked to, in one word, by which a caller may choose advice.
type Fault string

// The faults of contact with a node. FaultNone is a reason that has no word.
const (
	FaultNone        Fault = ""
	FaultName        Fault = "name"         // its name has no address
	FaultSilent      Fault = "silent"       // nothing comes back from its address
	FaultPort        Fault = "port"         // nothing listens at its address
	FaultRoute       Fault = "route"        // there is no way to its address
	FaultHangs       Fault = "hangs"        // it takes the connection, or has it, and says nothing
	FaultClosed      Fault = "closed"       // it takes the connection, and ends it
	FaultStranger    Fault = "stranger"     // something else than a node answers
	FaultDenied      Fault = "denied"       // its policy or its target says no, and would again
	FaultForeign     Fault = "foreign"      // one end's certificate is of another cluster
	FaultAuthority   Fault = "authority"    // it is of this cluster, and one end does not know the authority of the other
	FaultCertificate Fault = "certificate"  // it refuses our certificate, and its log says why
	FaultRevoked     Fault = "revoked"      // its certificate is revoked
	FaultRevokedName Fault = "name revoked" // its name is, so that no new certificate helps
	FaultMisnamed    Fault = "misnamed"     // its certificate is of a node of another name
	FaultOld         Fault = "old"          // it does not speak the version of the protocol that a question needs
)

// Cause is why a node is in its state, in parts. Causes that are equal but for Addr say the same of
// different nodes, so that a table can show these in one row.
type Cause struct {
	// Fault classifies the reason, where the node cannot be talked to.
	Fault Fault
	// Text is the reason up to the node's address, or all of it.
	Text string
	// Addr is the node's address, as in "10.0.0.7:9998". It is "" when the reason names none.
	Addr string
	// After is what follows the address.
	After string
}

// String is the reason: the three texts together.
func (c Cause) String() string { return c.Text + c.Addr + c.After }

// because makes a cause without parts.
func because(text string) Cause { return Cause{Text: text} }

type (
	// noAnswer is the error of a contact that failed.
	noAnswer struct{ Cause }
	// refusal is the error of a contact in which either end said no, by authentication or protocol.
	refusal struct{ Cause }
)

func (e *noAnswer) Error() string { return e.String() }
func (e *refusal) Error() string  { return e.String() }

func (e *noAnswer) cause() Cause { return e.Cause }
func (e *refusal) cause() Cause  { return e.Cause }

func isRefusal(err error) bool {
	var r *refusal
	return errors.As(err, &r)
}

// causeOf returns the cause that the error of a contact has.
func causeOf(err error) Cause {
	var c interface{ cause() Cause }
	if errors.As(err, &c) {
		return c.cause()
	}
	return because(err.Error())
}

// dialError says that a connect to one address failed, and what time it had.
type dialError struct {
	addr string
	in   time.Duration
	err  error
}

func (e *dialError) Error() string { return e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

// unconnected turns the error of a connect into one whose cause a row can show.
func unconnected(err error) error {
	var d *dialError
	if !errors.As(err, &d) {
		return &noAnswer{because(err.Error())}
	}
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return &noAnswer{Cause{FaultPort, "connection refused by ", d.addr, ""}}
	case isTimeout(err), errors.Is(err, context.DeadlineExceeded):
		return &noAnswer{Cause{FaultSilent, "no answer from ", d.addr, " in " + about(d.in)}}
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return &noAnswer{Cause{FaultRoute, "no route to ", d.addr, ""}}
	}
	return &noAnswer{Cause{FaultNone, "cannot connect to ", d.addr, ": " + relay.Bare(d.err).Error()}}
}

// ungreeted turns the error of a handshake with addr, which had the time in, into one whose cause a row
// can show. It is a refusal when either end judged a certificate, else a noAnswer.
func ungreeted(err error, addr string, in time.Duration) error {
	var op *net.OpError
	var verify *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var unknown x509.UnknownAuthorityError
	// These methods are of the errors of whoever checks certificates for us (ring/identity).
	var f interface{ Foreign() bool }
	var a interface{ OtherAuthority() bool }
	var r interface {
		Revoked() bool
		RevokedName() bool
	}
	var n interface{ Misnamed() bool }
	var known interface{ cause() Cause }
	switch {
	case errors.As(err, &known):
		return err
	case errors.As(err, &op) && op.Op == "remote error":
		// crypto/tls reports the peer's alert this way. Its type for alerts is not exported.
		fault := FaultCertificate
		if op.Err.Error() == tls.AlertError(alertUnknownCA).Error() {
			fault = FaultAuthority // we believed its certificate before it saw ours
		}
		return &refusal{Cause{Fault: fault, Text: "the node refused our certificate: " + op.Err.Error()}}
	case errors.As(err, &a) && a.OtherAuthority():
		return &refusal{Cause{Fault: FaultAuthority, Text: err.Error()}}
	case errors.As(err, &unknown):
		return &refusal{Cause{Fault: FaultForeign, Text: "its certificate is of another cluster: " + unknown.Error()}}
	case errors.As(err, &f) && f.Foreign():
		return &refusal{Cause{Fault: FaultForeign, Text: "its certificate is of another cluster: " + err.Error()}}
	case errors.As(err, &r) && r.RevokedName():
		return &refusal{Cause{Fault: FaultRevokedName, Text: err.Error()}}
	case errors.As(err, &r) && r.Revoked():
		return &refusal{Cause{Fault: FaultRevoked, Text: err.Error()}}
	case errors.As(err, &n) && n.Misnamed():
		return &refusal{Cause{Fault: FaultMisnamed, Text: err.Error()}}
	case errors.As(err, &verify):
		return &refusal{because("the node's certificate is refused: " + verify.Err.Error())}
	case errors.As(err, &record):
		return &noAnswer{Cause{FaultStranger, "what answers at ", addr, " is not a dolly-img node"}}
	case isTimeout(err), errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return &noAnswer{Cause{FaultHangs, "", addr, " takes the connection and does not answer in " + about(in)}}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.ErrClosedPipe),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return &noAnswer{Cause{FaultClosed, "", addr, " closed the connection without an answer"}}
	case errors.As(err, &op), errors.Is(err, net.ErrClosed):
		return &noAnswer{Cause{FaultNone, "", addr, ": " + relay.Bare(err).Error()}}
	}
	return &refusal{because(err.Error())}
}

// ungreetedAt makes one error of those that the addresses of a node ended with. It is a refusal where one of them is.
func ungreetedAt(errs []error) error {
	if len(errs) == 1 {
		return errs[0]
	}
	worst := errs[max(0, slices.IndexFunc(errs, isRefusal))]
	why := causeOf(worst)
	var texts, addrs []string
	alike := true
	for _, err := range errs {
		c := causeOf(err)
		texts, addrs = append(texts, c.String()), append(addrs, c.Addr)
		c.Addr = why.Addr
		alike = alike && c == why
	}
	switch {
	case !alike:
		why = Cause{Fault: why.Fault, Text: strings.Join(texts, "; ")}
	case why.Addr != "":
		why.Addr = strings.Join(addrs, " or ")
	}
	if isRefusal(worst) {
		return &refusal{why}
	}
	return &noAnswer{why}
}

// about writes a time as people say it.
func about(d time.Duration) string {
	if d >= time.Second {
		return d.Round(time.Second).String()
	}
	return d.Round(time.Second / 10).String()
}

// alertUnknownCA is the TLS alert unknown_ca (RFC 8446, section 6).
const alertUnknownCA = 48
