package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

// The application protocols (TLS ALPN, RFC 7301) of the two planes.
const (
	ControlProtocol = "dolly-img-control/1" // senders, warmers and viewers
	DataProtocol    = "dolly-img-data/1"    // senders, warmers and nodes
)

// An Identity is what one end of a connection proves itself with, and the
// authorities that it believes. It never changes, so that many goroutines may use it.
type Identity struct {
	// Peer is who this is.
	Peer

	dir     string // where it was read from
	ca      []*x509.Certificate
	roots   *x509.CertPool // of ca
	cert    tls.Certificate
	revoked *revoked
}

// Load reads the identity of a sender (sender.pem), a node (node.pem), a warmer (warmer.pem) or a viewer (viewer.pem), the
// ca.pem beside it, and the list of revoked certificates if there is one. Errors are of type *KeyError; if
// several files are wrong, they are joined.
func Load(dir string, role Role) (*Identity, error) {
	ca, caErr := readCA(dir)
	file, fileErr := read(dir, roleFile(role))
	list, listErr := loadRevoked(dir)
	var peer Peer
	if fileErr == nil {
		peer, fileErr = file.check(role, ca, time.Now())
	}
	if fileErr == nil && listErr == nil {
		if why := list.why(file.certs[0]); why != nil {
			fileErr = &KeyError{File: file.path, Problem: Revoked, Detail: why.String(), kind: why.remedy(), about: serial(file.certs[0])}
		}
	}
	wrong := slices.DeleteFunc([]error{caErr, fileErr, listErr}, func(err error) bool { return err == nil })
	if len(wrong) == 1 {
		return nil, wrong[0]
	}
	if len(wrong) > 1 {
		return nil, errors.Join(wrong...)
	}
	cert := tls.Certificate{PrivateKey: file.key, Leaf: file.certs[0]}
	for _, c := range file.certs {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return &Identity{Peer: peer, dir: dir, ca: ca.certs, roots: pool(ca.certs), cert: cert, revoked: list}, nil
}

// ServerConfig returns the configuration of a node that listens for the given
// protocols. It accepts a peer only with a certificate of this cluster whose role
// permits the protocol that both agreed on. A refusal is an error of the handshake.
func (id *Identity) ServerConfig(alpn ...string) *tls.Config {
	c := id.config(alpn...)
	c.ClientAuth = tls.RequireAndVerifyClientCert
	c.ClientCAs = id.roots
	return c
}

// ClientConfig returns the configuration of one connection to the node expectName: "host",
// "host:port", or "" for any node. The other end's certificate must be that of a node of this
// cluster. If it carries a name, that must be expectName: addresses are equal; host names are
// equal, or one is the unqualified form of the other; the port does not count. The
// configuration is for one name, and making it costs little.
func (id *Identity) ClientConfig(alpn string, expectName string) *tls.Config {
	c := id.config(alpn)
	// Our certificates have no DNS names. VerifyConnection, which runs at every
	// handshake, checks the whole chain in place of the default check.
	c.InsecureSkipVerify = true
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		peer, err := id.verify(cs, x509.ExtKeyUsageServerAuth)
		switch {
		case err != nil:
			return err
		case cs.NegotiatedProtocol != alpn:
			return &PeerError{Peer: peer, Reason: fmt.Sprintf("it does not speak %s", alpn)}
		case peer.Role != Node:
			return &PeerError{Peer: peer, Reason: "it listens, but is no node"}
		case peer.Name != "" && expectName != "" && !sameHost(peer.Name, expectName):
			return &PeerError{Peer: peer, Reason: fmt.Sprintf("it answers for %q", expectName), misnamed: true}
		}
		return nil
	}
	return c
}

func (id *Identity) config(alpn ...string) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		MaxVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{id.cert},
		NextProtos:             alpn,
		SessionTicketsDisabled: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			_, err := id.VerifyPeer(cs)
			return err
		},
	}
}

// VerifyPeer checks a client as ServerConfig does: the chain up to one of our authorities
// at this time, the cluster, and whether the role permits the protocol that both agreed
// on. It returns who the client is; every error is a *PeerError.
func (id *Identity) VerifyPeer(cs tls.ConnectionState) (Peer, error) {
	peer, err := id.verify(cs, x509.ExtKeyUsageClientAuth)
	if err != nil {
		return peer, err
	}
	switch {
	case cs.NegotiatedProtocol == ControlProtocol && peer.Role.calls():
	case cs.NegotiatedProtocol == DataProtocol && (peer.Role == Sender || peer.Role == Warmer || peer.Role == Node):
	case cs.NegotiatedProtocol == ControlProtocol:
		return peer, &PeerError{Peer: peer, Reason: "only a sender may open a transfer"}
	case cs.NegotiatedProtocol == DataProtocol:
		return peer, &PeerError{Peer: peer, Reason: fmt.Sprintf("a %s takes no part in a transfer", peer.Role)}
	default:
		return peer, &PeerError{Peer: peer, Reason: fmt.Sprintf("unknown protocol %q", cs.NegotiatedProtocol)}
	}
	return peer, nil
}

func (id *Identity) verify(cs tls.ConnectionState, use x509.ExtKeyUsage) (Peer, error) {
	if len(cs.PeerCertificates) == 0 {
		return Peer{}, &PeerError{Reason: "no certificate"}
	}
	chains, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{
		Roots:         id.roots,
		Intermediates: pool(cs.PeerCertificates[1:]),
		CurrentTime:   time.Now(),
		KeyUsages:     []x509.ExtKeyUsage{use},
	})
	if err != nil {
		var unknown x509.UnknownAuthorityError
		if peer, perr := PeerOf(cs); perr == nil && errors.As(err, &unknown) && peer.Cluster == id.Cluster {
			return Peer{}, &PeerError{Reason: fmt.Sprintf("its certificate names cluster %q, as ours does, but no authority in our ca.pem signed it", peer.Cluster), Err: err, authority: true}
		}
		return Peer{}, &PeerError{Reason: "bad certificate", Err: err}
	}
	peer, err := PeerOf(cs)
	if err != nil {
		return Peer{}, &PeerError{Reason: "bad certificate", Err: err}
	}
	if why := id.revoked.chains(chains); why != nil {
		return peer, &PeerError{Peer: peer, Reason: fmt.Sprintf("its certificate, serial %s, is revoked: %s", serial(cs.PeerCertificates[0]), why), revoked: why}
	}
	if peer.Cluster != id.Cluster {
		return peer, &PeerError{Peer: peer, Reason: fmt.Sprintf("this is cluster %q", id.Cluster), cluster: true}
	}
	return peer, nil
}

// serial returns a certificate's number as it is printed, and listed when it is revoked.
func serial(cert *x509.Certificate) string { return cert.SerialNumber.Text(16) }

// Revocations returns how many entries the list of revoked certificates has.
func (id *Identity) Revocations() int { return len(id.revoked.entries) }

// PeerOf returns who is at the other end of a connection whose handshake succeeded
// with one of our configs. It verifies nothing.
func PeerOf(cs tls.ConnectionState) (Peer, error) {
	if len(cs.PeerCertificates) == 0 {
		return Peer{}, errors.New("no certificate")
	}
	return certPeer(cs.PeerCertificates[0])
}
