package identity

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// A Role is what a certificate lets its holder do.
type Role string

// These are the roles of a certificate.
const (
	Sender Role = "sender" // opens transfers
	Node   Role = "node"   // takes part in them
	Warmer Role = "warmer" // fills the caches of nodes, and says what they should keep
	Viewer Role = "viewer" // asks nodes what they have

	authority Role = "ca"
)

// roles are the roles of the certificates that are issued.
var roles = []Role{Sender, Node, Warmer, Viewer}

// calls reports whether the holder of a certificate opens connections, and never takes them.
func (r Role) calls() bool { return r == Sender || r == Warmer || r == Viewer }

// A Peer is who a certificate says its holder is.
type Peer struct {
	Role Role
	// Name is "" in the key that all nodes share.
	Name    string
	Cluster string
}

// String returns the URI in the certificate.
func (p Peer) String() string { return p.uri().String() }

const scheme = "dolly-img"

func (p Peer) uri() *url.URL {
	return &url.URL{Scheme: scheme, Host: p.Cluster, Path: "/" + string(p.Role) + "/" + p.Name}
}

// parsePeer is the inverse of Peer.uri and accepts nothing else.
func parsePeer(u *url.URL) (Peer, error) {
	role, name, ok := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	p := Peer{Role: Role(role), Name: name, Cluster: u.Host}
	switch {
	case !ok, p.uri().String() != u.String():
		return Peer{}, fmt.Errorf("malformed name %q", u)
	case !slices.Contains(roles, p.Role) && p.Role != authority:
		return Peer{}, fmt.Errorf("unknown role in %q", u)
	case p.Role.calls() && name == "":
		return Peer{}, fmt.Errorf("no name in %q", u)
	case name != "" && checkName(name) != nil:
		return Peer{}, fmt.Errorf("malformed name %q", u)
	}
	return p, checkCluster(p.Cluster)
}

// certPeer returns the peer named by a certificate whose key is of a kind we use.
func certPeer(cert *x509.Certificate) (Peer, error) {
	switch key := cert.PublicKey.(type) {
	case ed25519.PublicKey:
	case *ecdsa.PublicKey:
		if key.Curve != elliptic.P256() {
			return Peer{}, fmt.Errorf("key is ECDSA %s, not P-256 or Ed25519", key.Curve.Params().Name)
		}
	default:
		return Peer{}, fmt.Errorf("key is %s, not Ed25519 or P-256", cert.PublicKeyAlgorithm)
	}
	if len(cert.URIs) != 1 || cert.URIs[0].Scheme != scheme {
		return Peer{}, fmt.Errorf("no %s:// name in the certificate", scheme)
	}
	return parsePeer(cert.URIs[0])
}

const alphanumeric = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

func checkCluster(s string) error {
	if s == "" || len(s) > 63 || strings.Trim(s, alphanumeric+"-") != "" || strings.HasPrefix(s, "-") || strings.HasSuffix(s, "-") {
		return fmt.Errorf("cluster name %q: want up to 63 letters, digits and inner dashes", s)
	}
	return nil
}

// checkName accepts a host name, an IPv4 address, and an IPv6 address without brackets or zone. All of these
// are safe in the name of a file.
func checkName(s string) error {
	if s == "" || len(s) > 253 || strings.Trim(s, alphanumeric+"._-:") != "" || strings.Trim(s[:1], alphanumeric+":") != "" {
		return fmt.Errorf("name %q: want a host name or an address of up to 253 characters", s)
	}
	return nil
}

// sameHost reports whether the name in a certificate stands for the node that was
// asked for, as "host", "host:port", "address" or "[address]:port". It ignores the port,
// and upper and lower case. Addresses must be equal. Host names must be equal, or one of
// them must be unqualified and equal to the first label of the other. So a certificate for
// node7 is good for node7.cluster.example, and the other way round.
func sameHost(certified, asked string) bool {
	if host, _, err := net.SplitHostPort(asked); err == nil {
		asked = host
	}
	asked = strings.TrimSuffix(strings.TrimPrefix(asked, "["), "]")
	a, errA := netip.ParseAddr(certified)
	b, errB := netip.ParseAddr(asked)
	if errA == nil || errB == nil {
		return errA == nil && errB == nil && a.Unmap() == b.WithZone("").Unmap()
	}
	certified = strings.ToLower(strings.TrimSuffix(certified, "."))
	asked = strings.ToLower(strings.TrimSuffix(asked, "."))
	shortA, domainA, _ := strings.Cut(certified, ".")
	shortB, domainB, _ := strings.Cut(asked, ".")
	return shortA != "" && shortA == shortB && (domainA == domainB || domainA == "" || domainB == "")
}
