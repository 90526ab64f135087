package identity

import (
	"crypto/x509"
	"fmt"
	"path/filepath"
	"time"
)

// Soon is how long before the end of a certificate warnings begin.
const Soon = 30 * day

// An End says when a certificate ends that somebody relies on.
type End struct {
	// What names it, as in "the certificate in keys/node.pem".
	What string
	// After is the last moment at which it is good.
	After time.Time
}

// String says in a sentence when it ends, as seen at the time now.
func (e End) String(now time.Time) string {
	date := e.After.UTC().Format(time.DateOnly)
	left := e.After.Sub(now)
	switch days := int(left / day); {
	case left <= 0:
		return fmt.Sprintf("%s ended on %s", e.What, date)
	case days == 0:
		return fmt.Sprintf("%s ends on %s, in less than a day", e.What, date)
	case days == 1:
		return fmt.Sprintf("%s ends on %s, in 1 day", e.What, date)
	default:
		return fmt.Sprintf("%s ends on %s, in %d days", e.What, date, days)
	}
}

// EndsSoon reports whether somebody should be warned, at the time now, of a certificate that ends at t.
func EndsSoon(t, now time.Time) bool { return t.Before(now.Add(Soon)) }

// Until returns when the certificate of this identity ends, and when the last authority ends that the identity
// believes.
func (id *Identity) Until() (own, authority time.Time) {
	for _, cert := range id.ca {
		if cert.NotAfter.After(authority) {
			authority = cert.NotAfter
		}
	}
	return id.cert.Leaf.NotAfter, authority
}

// Ending returns what ends soon: the identity's own certificate, and authorities. It leaves out an authority that has
// ended if there is another one, because nothing relies on it any more.
func (id *Identity) Ending(now time.Time) []End {
	var ends []End
	if EndsSoon(id.cert.Leaf.NotAfter, now) {
		ends = append(ends, End{"the certificate in " + filepath.Join(id.dir, roleFile(id.Role)), id.cert.Leaf.NotAfter})
	}
	return append(ends, endingAuthorities(filepath.Join(id.dir, caFile), id.ca, now)...)
}

func endingAuthorities(path string, certs []*x509.Certificate, now time.Time) []End {
	var ends []End
	for _, cert := range certs {
		replaced := now.After(cert.NotAfter) && len(certs) > 1
		if EndsSoon(cert.NotAfter, now) && !replaced {
			ends = append(ends, End{"the authority in " + path, cert.NotAfter})
		}
	}
	return ends
}
