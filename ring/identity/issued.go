package identity

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

// The file "issued" beside ca.key lists the certificates that were made there, so that one can be
// revoked by its number when its file has been replaced or is gone. Each line is
//
//	SERIAL ROLE NAME FROM UNTIL
//
// SERIAL is the serial number as in the list of revoked certificates. ROLE is ca, sender, node, warmer or viewer. NAME is - if there is
// none. Times are in UTC. # begins a comment, but where a line begins with #! the rest of it is one of a warmer or a viewer, which
// earlier programs pass over. Keys that an earlier version made are added when the list is written the
// next time.

// Issued is one certificate that was made.
type Issued struct {
	// Serial is its number: hexadecimal, lower case, without leading zeros.
	Serial string
	Role   Role
	// Name is "" in the key that all nodes share, and of an authority.
	Name string
	// From and Until are between which times it is good.
	From, Until time.Time
}

const issuedTime = "2006-01-02T15:04:05Z"

// maxIssued bounds the list, in bytes: a line has about 100.
const maxIssued = 64 << 20

// String returns the certificate as a line of the list.
func (i Issued) String() string {
	name := i.Name
	if name == "" {
		name = "-"
	}
	return fmt.Sprintf("%s %s %s %s %s", i.Serial, i.Role, name, i.From.UTC().Format(issuedTime), i.Until.UTC().Format(issuedTime))
}

func parseIssued(data []byte) ([]Issued, error) {
	var list []Issued
	n := 0
	for line := range bytes.Lines(data) {
		n++
		text, later := uncomment(string(line))
		fields := strings.Fields(text)
		if len(fields) == 0 && !later {
			continue
		}
		i, err := parseIssuedLine(fields)
		if err != nil {
			return nil, &lineError{n, err}
		}
		list = append(list, i)
	}
	return list, nil
}

func parseIssuedLine(fields []string) (Issued, error) {
	if len(fields) != 5 {
		return Issued{}, fmt.Errorf("%d words: want SERIAL ROLE NAME FROM UNTIL", len(fields))
	}
	i := Issued{Serial: fields[0], Role: Role(fields[1])}
	if n, ok := new(big.Int).SetString(i.Serial, 16); !ok || n.Sign() <= 0 || n.Text(16) != i.Serial || len(i.Serial) > maxSerial {
		return Issued{}, fmt.Errorf("serial number %q: want up to %d hexadecimal digits", i.Serial, maxSerial)
	}
	if !slices.Contains(roles, i.Role) && i.Role != authority {
		return Issued{}, fmt.Errorf("role %q: want ca, sender, node, warmer or viewer", i.Role)
	}
	if fields[2] != "-" {
		i.Name = fields[2]
		if err := checkName(i.Name); err != nil {
			return Issued{}, err
		}
	}
	for at, to := range map[int]*time.Time{3: &i.From, 4: &i.Until} {
		t, err := time.Parse(issuedTime, fields[at])
		if err != nil || t.Format(issuedTime) != fields[at] {
			return Issued{}, fmt.Errorf("time %q: want it as in %s", fields[at], issuedTime)
		}
		*to = t
	}
	return i, nil
}

// loadIssued reads the list in dir. Without the file the list is empty.
func loadIssued(dir string) ([]Issued, error) {
	path := filepath.Join(dir, issuedFile)
	data, _, err := readBounded(path, maxIssued)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	list, err := parseIssued(data)
	if err != nil {
		return nil, &KeyError{File: path, Problem: Malformed, Err: err,
			kind: errkind.Kind("issued-malformed")}
	}
	return list, nil
}

// issuedAs returns how a certificate is listed. Ok is false for one that is none of ours.
func issuedAs(cert *x509.Certificate) (i Issued, ok bool) {
	peer, err := certPeer(cert)
	return Issued{serial(cert), peer.Role, peer.Name, cert.NotBefore, cert.NotAfter}, err == nil
}

// record adds to the list the certificates in dir that an authority in ca.pem issued and that are not
// listed yet. It is called before keys are replaced and after keys were made.
func record(dir string) error {
	list, err := loadIssued(dir)
	if err != nil {
		return err
	}
	ca, err := readCA(dir)
	if err != nil {
		return err
	}
	listed := map[string]bool{}
	for _, i := range list {
		listed[i.Serial] = true
	}
	var more []byte
	for _, i := range held(dir, ca) {
		if !listed[i.Serial] {
			more = fmt.Appendln(more, laterLine(i.Role, i.String()))
		}
	}
	if len(more) == 0 {
		return nil
	}
	path := filepath.Join(dir, issuedFile)
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		data = []byte("# SERIAL ROLE NAME FROM UNTIL\n")
	case err != nil:
		return &KeyError{File: path, Problem: Unreadable, Err: errors.Unwrap(err)}
	case len(data) > 0 && !bytes.HasSuffix(data, []byte("\n")):
		data = append(data, '\n')
	}
	return replace(dir, []newFile{{issuedFile, 0o644, append(data, more...)}})
}

// held returns the authorities in ca.pem and the certificates in dir that they signed. It passes over
// files that something is wrong with.
func held(dir string, ca *keyFile) []Issued {
	var list []Issued
	for _, cert := range ca.certs {
		if i, ok := issuedAs(cert); ok {
			list = append(list, i)
		}
	}
	for _, name := range certFiles(dir) {
		file, _ := read(dir, name)
		if file == nil || len(file.certs) == 0 {
			continue
		}
		for _, authority := range ca.certs {
			if i, ok := issuedAs(file.certs[0]); ok && file.certs[0].CheckSignatureFrom(authority) == nil {
				list = append(list, i)
			}
		}
	}
	return list
}
