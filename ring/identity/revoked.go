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

// The file "revoked" beside the keys lists certificates that are not to be believed, though an
// authority signed them. Each line is a serial number, or a name, which stands for all
// certificates that have it, also later ones:
//
//	5f0c31a2…        the serial number of one certificate, hexadecimal, as keys show prints it
//	0x2a             a serial number that is short
//	node/n07         every certificate of the node n07
//	sender/alice     every certificate of the sender alice
//	alice            every certificate with this name, of whatever role
//
// Before the name stands a role or none: sender, node, warmer or viewer.
//
// # begins a comment, but where a line begins with #! the rest of it is an entry that means warmers or viewers. Programs that know neither
// role, whose nodes refuse both, take it for a comment and read on; keys revoke writes such entries so. Anything else is an error, and then
// none of the file is used.

// laterMark begins a line that earlier programs take for a comment.
const laterMark = "#!"

// uncomment returns what stands in a line of a list. Later says that earlier programs pass over it.
func uncomment(line string) (text string, later bool) {
	line, later = strings.CutPrefix(strings.TrimSpace(line), laterMark)
	text, _, _ = strings.Cut(line, "#")
	return strings.TrimSpace(text), later
}

// isLater reports whether earlier programs do not know a role, and would not use a list that has it.
func (r Role) isLater() bool { return r == Warmer || r == Viewer }

// laterLine returns a line of a list that is about a role, as earlier programs can read it.
func laterLine(role Role, text string) string {
	if role.isLater() {
		return laterMark + " " + text
	}
	return text
}

// A Revocation is one entry of that list: either a serial number or a name.
type Revocation struct {
	// Serial is the number: hexadecimal, lower case, without leading zeros. It is "" for a name.
	Serial string
	// Role is that of the name. "" is any role.
	Role Role
	Name string
}

// String returns the entry as it stands in the file.
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

// line returns the entry as keys revoke writes it.
func (r Revocation) line() string { return laterLine(r.Role, r.String()) }

// The bounds of a serial number in hexadecimal digits. What has longSerial digits or more cannot be
// meant as a name. RFC 5280, section 4.1.2.2, allows 20 octets.
const (
	longSerial = 24
	maxSerial  = 40
)

const hexDigits = "0123456789abcdefABCDEF"

// ParseRevocation reads one entry. An error quotes it and says what is wanted.
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
	case ok && !slices.Contains(roles, r.Role):
		return Revocation{}, fmt.Errorf("%q: want a serial number, NAME, or NAME behind sender/, node/, warmer/ or viewer/", s)
	case ok && name == "":
		return Revocation{}, fmt.Errorf("%q: a key without a name is revoked by its serial number, which dolly-img keys show prints", s)
	}
	return r, checkName(name)
}

// serialDigits reports whether s is meant as a serial number, and returns its digits. Such a number is 0x
// and digits, or at least longSerial digits, also in pairs as openssl prints them. No address is one.
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

// of reports whether r means the certificate of peer that has the serial number.
func (r Revocation) of(serial string, peer Peer) bool {
	if r.Serial != "" {
		return r.Serial == serial
	}
	return (r.Role == "" || r.Role == peer.Role) && strings.EqualFold(r.Name, peer.Name)
}

// revoked is the list in the file. A nil one revokes nothing.
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
		text, later := uncomment(string(line))
		if text == "" && !later {
			continue
		}
		if strings.ContainsAny(text, " \t") {
			return nil, &lineError{n, fmt.Errorf("%q: want one serial number or name a line", text)}
		}
		r, err := ParseRevocation(text)
		if err == nil && later && !r.Role.isLater() {
			err = fmt.Errorf("%s %s: want warmer/NAME or viewer/NAME behind %s", laterMark, text, laterMark)
		}
		if err != nil {
			return nil, &lineError{n, err}
		}
		list.entries, list.lines = append(list.entries, r), append(list.lines, n)
	}
	return list, nil
}

// loadRevoked reads the file in dir. Without the file the list is empty.
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
		return nil, &KeyError{File: path, Problem: Writable, Detail: "mode " + info.Mode().Perm().String(), kind: errkind.Kind("key-writable"), about: path}
	}
	list, err := parseRevoked(data)
	if err != nil {
		return nil, &KeyError{File: path, Problem: Malformed, Err: err,
			kind: errkind.Kind("revoked-malformed")}
	}
	list.path = path
	return list, nil
}

// A match is an entry that means a certificate, and where the entry stands.
type match struct {
	Revocation
	line int
	path string
}

func (l *match) String() string { return fmt.Sprintf("line %d of %s", l.line, l.path) }

// remedy returns the kind of failure for somebody who holds the certificate. If its name is revoked, a new
// certificate does not help.
func (l *match) remedy() errkind.Kind {
	if l.Serial == "" {
		return errkind.Kind("name-use-again")
	}
	return errkind.Kind("serial-revoked")
}

// why returns the entry that means cert, or nil.
func (l *revoked) why(cert *x509.Certificate) *match {
	peer, _ := certPeer(cert) // a certificate that is none of ours has a serial number, too
	return l.whyOf(serial(cert), peer)
}

func (l *revoked) whyOf(serial string, peer Peer) *match {
	if l == nil {
		return nil
	}
	for i, r := range l.entries {
		if r.of(serial, peer) {
			return &match{r, l.lines[i], l.path}
		}
	}
	return nil
}

// chain returns the entry that means a certificate of the chain, or nil.
func (l *revoked) chain(certs []*x509.Certificate) *match {
	for _, cert := range certs {
		if why := l.why(cert); why != nil {
			return why
		}
	}
	return nil
}

// chains returns the entry because of which none of chains can be believed, or nil if one can be.
func (l *revoked) chains(chains [][]*x509.Certificate) (why *match) {
	for _, c := range chains {
		if why = l.chain(c); why == nil {
			return nil
		}
	}
	return why
}

// Meant is what an entry stands for among the keys that are known.
type Meant struct {
	// Revocation is the entry.
	Revocation
	// Files are the names of the files in the directory that it means.
	Files []string
	// Issued are the certificates that it means in the list of issued ones, and that are in no file.
	Issued []Issued

	roles map[Role]bool
}

// An AmbiguousNameError says that keys of several roles have the name that an entry gives up.
type AmbiguousNameError struct {
	Name  string
	Roles []Role
}

func (e *AmbiguousNameError) Error() string {
	return fmt.Sprintf("%s: several keys have this name: %s", e.Name, e.each(", "))
}

// each returns the names with their roles, as a list of revoked certificates has them.
func (e *AmbiguousNameError) each(separator string) string {
	var names []string
	for _, role := range e.Roles {
		names = append(names, Revocation{Role: role, Name: e.Name}.String())
	}
	return strings.Join(names, separator)
}

// Kind returns what kind of failure it is.
func (e *AmbiguousNameError) Kind() (errkind.Kind, []string) {
	return "key-ambiguous", []string{e.each(" or ")}
}

// An UnknownKeyError says that an entry would stand for no key that is known.
type UnknownKeyError struct {
	Revocation
	Dir string
}

func (e *UnknownKeyError) Error() string {
	return fmt.Sprintf("%s: no key in %s, and none that was issued there, has it", e.Revocation, e.Dir)
}

// Kind returns what kind of failure it is.
func (e *UnknownKeyError) Kind() (errkind.Kind, []string) { return "key-unknown", nil }

// Revoke adds entries to the list in dir, which it makes if need be, and returns what each stands
// for. It does not add what is listed already.
//
// Without force, Revoke returns an *UnknownKeyError if an entry stands for no key that is known, and an
// *AmbiguousNameError if keys of several roles have the name. It returns a *KeyError if the only authority
// would be revoked. After an error nothing is changed.
func Revoke(dir string, entries []Revocation, force bool, now time.Time) ([]Meant, error) {
	list, err := loadRevoked(dir)
	if err != nil {
		return nil, err
	}
	known, err := loadIssued(dir)
	if err != nil {
		return nil, err
	}
	ca, err := readCA(dir)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(list.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if len(data) > 0 && !bytes.HasSuffix(data, []byte("\n")) {
		data = append(data, '\n')
	}
	var all []Meant
	more := false
	for _, r := range entries {
		m, err := meant(dir, r, ca, known)
		if err != nil {
			return nil, err
		}
		listed := slices.Contains(list.entries, r)
		if !force && !listed && len(m.Files) == 0 && len(m.Issued) == 0 {
			return nil, &UnknownKeyError{r, dir}
		}
		if !force && !listed && len(m.roles) > 1 {
			return nil, &AmbiguousNameError{r.Name, slices.DeleteFunc(slices.Clone(roles), func(role Role) bool { return !m.roles[role] })}
		}
		if !listed {
			data, more = fmt.Appendf(data, "%s  # %s\n", r.line(), now.UTC().Format(time.DateOnly)), true
			list.entries = append(list.entries, r)
		}
		all = append(all, m)
	}
	if !more {
		return all, nil
	}
	return all, replace(dir, []newFile{{revokedFile, 0o644, data}})
}

// meant finds what r stands for in dir, of which ca is ca.pem, and among the certificates in known.
func meant(dir string, r Revocation, ca *keyFile, known []Issued) (Meant, error) {
	m := Meant{Revocation: r, roles: map[Role]bool{}}
	here := map[string]bool{} // serial numbers
	for _, cert := range ca.certs {
		here[serial(cert)] = true
		if r.Serial != serial(cert) {
			continue
		}
		if len(ca.certs) == 1 {
			return m, &KeyError{File: ca.path, Problem: Needed, Detail: "it is the only authority, and without it no certificate is good",
				kind: errkind.Kind("authority-only")}
		}
		m.Files = append(m.Files, caFile)
	}
	for _, name := range certFiles(dir) {
		file, _ := read(dir, name) // one that is damaged does not keep others from being given up
		if file == nil || len(file.certs) == 0 {
			continue
		}
		here[serial(file.certs[0])] = true
		if peer, err := certPeer(file.certs[0]); err == nil && r.of(serial(file.certs[0]), peer) {
			m.Files, m.roles[peer.Role] = append(m.Files, name), true
		}
	}
	for _, i := range known {
		if !here[i.Serial] && r.of(i.Serial, Peer{Role: i.Role, Name: i.Name}) {
			m.Issued, m.roles[i.Role] = append(m.Issued, i), true
		}
	}
	return m, nil
}
