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
	"strings"
	"time"
)

// The file "revoked" beside the keys lists certificates that are not to be believed, though an
// authority signed them. Each line is a serial number, or a name, which stands for all
// certificates that have it, also later ones:
//
//	5f0c31a2…        the serial number of one certificate, hexadecimal, as keys show prints it
//	0x2a             the same of one that is short
//	node/n07         every certificate of the node n07
//	sender/alice     every certificate of the sender alice
//	alice            every certificate with this name, of a sender or a node
//
// # begins a comment. Anything else is an error, and then none of the file is used.

// A Revocation is one entry of that list: either a serial number or a name.
type Revocation struct {
	Serial string // hexadecimal, lower case, without leading zeros
	Role   Role   // "": any
	Name   string
}

// String is the entry as it stands in the file.
func (r Revocation) String() string {
	switch {
	case len(r.Serial) >= longSerial:
		return r.Serial
	case r.Serial != "":
		return "0x" + r.Serial
	case r.Role != "":
		return string(r.Role) + "/" + r.Name
	}
	return r.Name
}

// Bounds of a serial number in hexadecimal digits: from longSerial on it cannot be meant as a
// name, and RFC 5280 section 4.1.2.2 allows 20 octets.
const (
	longSerial = 24
	maxSerial  = 40
)

const hexDigits = "0123456789abcdefABCDEF"

// ParseRevocation reads one entry.
func ParseRevocation(s string) (Revocation, error) {
	if digits, ok := serialDigits(s); ok {
		n, ok := new(big.Int).SetString(digits, 16)
		if !ok || strings.Trim(digits, hexDigits) != "" || len(digits) > maxSerial || n.Sign() == 0 {
			return Revocation{}, fmt.Errorf("serial number %q: want up to %d hexadecimal digits", s, maxSerial)
		}
		return Revocation{Serial: n.Text(16)}, nil
	}
	role, name, ok := strings.Cut(s, "/")
	if !ok {
		role, name = "", s
	}
	r := Revocation{Role: Role(role), Name: name}
	switch {
	case ok && r.Role != Sender && r.Role != Node:
		return Revocation{}, fmt.Errorf("%q: want a serial number, NAME, sender/NAME or node/NAME", s)
	case ok && name == "":
		return Revocation{}, fmt.Errorf("%q: a key without a name is revoked by its serial number, which dolly-img keys show prints", s)
	}
	return r, checkName(name)
}

// serialDigits tells whether s is meant as a serial number: 0x and digits, at least longSerial
// digits, or so many in pairs, as openssl prints them. Addresses are none of these.
func serialDigits(s string) (string, bool) {
	if digits, ok := strings.CutPrefix(s, "0x"); ok {
		return digits, true
	}
	digits := s
	if pairs := strings.Split(s, ":"); len(pairs) > 1 {
		for _, pair := range pairs {
			if len(pair) != 2 {
				return "", false
			}
		}
		digits = strings.Join(pairs, "")
	}
	return digits, len(digits) >= longSerial && strings.Trim(digits, hexDigits) == ""
}

// of tells whether r means cert, which certifies peer.
func (r Revocation) of(cert *x509.Certificate, peer Peer) bool {
	if r.Serial != "" {
		return cert.SerialNumber != nil && r.Serial == cert.SerialNumber.Text(16)
	}
	return (r.Role == "" || r.Role == peer.Role) && strings.EqualFold(r.Name, peer.Name)
}

// revoked is what the file says; nil: nothing.
type revoked struct {
	path    string
	entries []Revocation
	lines   []int // of each entry
}

func parseRevoked(data []byte) (*revoked, error) {
	list := &revoked{}
	n := 0
	for line := range bytes.Lines(data) {
		n++
		text, _, _ := strings.Cut(string(line), "#")
		text = strings.TrimSpace(text)
		if text == "" {
			continue
		}
		if strings.ContainsAny(text, " \t") {
			return nil, &lineError{n, fmt.Errorf("%q: want one serial number or name a line", text)}
		}
		r, err := ParseRevocation(text)
		if err != nil {
			return nil, &lineError{n, err}
		}
		list.entries, list.lines = append(list.entries, r), append(list.lines, n)
	}
	return list, nil
}

// loadRevoked reads the file in dir. That there is none is no error.
func loadRevoked(dir string) (*revoked, error) {
	path := filepath.Join(dir, revokedFile)
	data, info, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &revoked{path: path}, nil
	}
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o022 != 0 {
		return nil, &KeyError{File: path, Problem: Writable, Detail: "mode " + info.Mode().Perm().String(), hint: "chmod go-w " + path}
	}
	list, err := parseRevoked(data)
	if err != nil {
		return nil, &KeyError{File: path, Problem: Malformed, Err: err,
			hint: "each line is a serial number as dolly-img keys show prints it, or a name; # begins a comment"}
	}
	list.path = path
	return list, nil
}

// why says which line means cert, "" for none.
func (l *revoked) why(cert *x509.Certificate) string {
	if l == nil || len(l.entries) == 0 {
		return ""
	}
	peer, _ := certPeer(cert) // one that is none of ours has a serial number still
	for i, r := range l.entries {
		if r.of(cert, peer) {
			return fmt.Sprintf("line %d of %s", l.lines[i], l.path)
		}
	}
	return ""
}

// chain is the same of a chain from a certificate to its authority.
func (l *revoked) chain(certs []*x509.Certificate) string {
	for _, cert := range certs {
		if why := l.why(cert); why != "" {
			return why
		}
	}
	return ""
}

// chains says why none of chains is to be believed, "" when one is.
func (l *revoked) chains(chains [][]*x509.Certificate) (why string) {
	for _, c := range chains {
		if why = l.chain(c); why == "" {
			return ""
		}
	}
	return why
}

// Revoke adds r to the list in dir, which it makes if need be, and returns the files in dir
// whose certificates it means. What is listed already is not added again.
func Revoke(dir string, r Revocation, now time.Time) (files []string, err error) {
	list, err := loadRevoked(dir)
	if err != nil {
		return nil, err
	}
	ca, err := readCA(dir)
	if err != nil {
		return nil, err
	}
	for _, cert := range ca.certs {
		if peer, _ := certPeer(cert); r.Serial != "" && r.of(cert, peer) && len(ca.certs) == 1 {
			return nil, &KeyError{File: ca.path, Problem: Needed, Detail: "it is the only authority, and without it no certificate is good",
				hint: "replace it first, on the server: dolly-img keys renew --ca"}
		}
	}
	for _, name := range issued(dir) {
		file, err := read(dir, name)
		if file == nil || len(file.certs) == 0 {
			if err != nil {
				return nil, err
			}
			continue
		}
		if peer, err := certPeer(file.certs[0]); err == nil && r.of(file.certs[0], peer) {
			files = append(files, name)
		}
	}
	for _, e := range list.entries {
		if e == r {
			return files, nil
		}
	}
	data, err := os.ReadFile(list.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if len(data) > 0 && !bytes.HasSuffix(data, []byte("\n")) {
		data = append(data, '\n')
	}
	data = fmt.Appendf(data, "%s  # %s\n", r, now.UTC().Format(time.DateOnly))
	return files, replace(dir, []newFile{{revokedFile, 0o644, data}})
}
