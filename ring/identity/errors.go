package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

// A Problem is what can be wrong with a file of keys.
type Problem string

// These are the problems of a KeyError.
const (
	Missing     Problem = "missing"
	Unreadable  Problem = "unreadable"
	TooOpen     Problem = "accessible to group or others"
	Malformed   Problem = "malformed"
	Expired     Problem = "expired"
	NotYetValid Problem = "not yet valid"
	Foreign     Problem = "not signed by ca.pem"
	WrongRole   Problem = "wrong role"
	WrongKey    Problem = "key and certificate do not belong together"
	Exists      Problem = "exists already"
	Revoked     Problem = "revoked"
	Writable    Problem = "writable by group or others"
	EndsTooSoon Problem = "ends soon"
	Needed      Problem = "still needed"
)

// A KeyError says which file of keys cannot be used and why.
type KeyError struct {
	// File is its path.
	File    string
	Problem Problem
	// Detail says more, or is "".
	Detail string
	// Err is the cause, or nil.
	Err error

	kind  errkind.Kind
	about string // what advice for the kind repeats
}

func (e *KeyError) Error() string {
	s := fmt.Sprintf("key file %s: %s", e.File, e.Problem)
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *KeyError) Unwrap() error { return e.Err }

// Kind returns what kind of failure it is, or "".
func (e *KeyError) Kind() (errkind.Kind, []string) { return e.kind, []string{e.about} }

// A NotFoundError says that there are no keys in any of the places where Find looked.
type NotFoundError struct {
	// Places has these places, in the order in which Find looked there.
	Places []string

	denied bool // the user may not look into one of them
}

func (e *NotFoundError) Error() string {
	if e.denied {
		return "no keys that this user may read in " + strings.Join(e.Places, ", ")
	}
	return "no keys found in " + strings.Join(e.Places, ", ")
}

// Kind returns "keys-none", or "keys-denied" if there may be keys that only other users can read.
func (e *NotFoundError) Kind() (errkind.Kind, []string) {
	if e.denied {
		return "keys-denied", nil
	}
	return "keys-none", nil
}

// A PeerError refuses a peer whose certificate is not genuine, or is genuine and does not
// permit what the peer wants.
type PeerError struct {
	// Peer is who the peer is, or the zero Peer if the certificate could not be read.
	Peer Peer
	// Reason says why the peer is refused.
	Reason string
	// Err is the cause, or nil.
	Err error

	cluster   bool   // the certificate names another cluster
	authority bool   // it names this cluster, and another authority signed it
	revoked   *match // the entry that revokes it, or nil
	misnamed  bool   // it is of a node of another name
}

// Misnamed reports whether the peer's certificate is genuine, and of a node of another name than the one that was called.
func (e *PeerError) Misnamed() bool { return e.misnamed }

// Revoked reports whether the peer's certificate is listed as revoked.
func (e *PeerError) Revoked() bool { return e.revoked != nil }

// RevokedName reports whether the certificate is listed by its name. A new certificate would have the same name.
func (e *PeerError) RevokedName() bool { return e.revoked != nil && e.revoked.Serial == "" }

// OtherAuthority reports whether the peer's certificate names this cluster, and none of our authorities signed it.
func (e *PeerError) OtherAuthority() bool { return e.authority }

func (e *PeerError) Error() string {
	s := "peer refused: "
	if e.Peer != (Peer{}) {
		s = fmt.Sprintf("peer %s refused: ", e.Peer)
	}
	s += e.Reason
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *PeerError) Unwrap() error { return e.Err }

// Foreign reports whether the peer's certificate is of another cluster. That is so if it names another one, or if
// another authority made it and it does not name this cluster.
func (e *PeerError) Foreign() bool {
	var unknown x509.UnknownAuthorityError
	return e.cluster || !e.authority && errors.As(e.Err, &unknown)
}

// Kind returns what kind of failure it is.
func (e *PeerError) Kind() (errkind.Kind, []string) { return "keys-differ", nil }

// Refused reports whether an error of a handshake, or of the first Read after it, means that one end refused the other
// for its certificate, protocol or version. Otherwise the connection failed.
func Refused(err error) bool {
	var peer *PeerError
	var verify *tls.CertificateVerificationError
	var op *net.OpError
	return errors.As(err, &peer) || errors.As(err, &verify) ||
		errors.As(err, &op) && op.Op == "remote error"
}
