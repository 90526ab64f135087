package identity

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

// An Entry describes one certificate, a file that holds none, or a certificate that was issued and
// is in no file of the directory.
type Entry struct {
	// File is the path, and "" for a certificate that is in no file.
	File string
	// State is set if File is "". It is "issued" (somebody may use it until it ends), "revoked" or "ended".
	State string
	// Role is "ca", "sender", "node", "warmer" or "viewer", and "" if it is unknown.
	Role string
	// Name is "" in the key that all nodes share.
	Name                string
	Cluster             string
	NotBefore, NotAfter time.Time
	// Serial is the number of the certificate, hexadecimal, as in the list of revoked ones.
	Serial string
	// Fingerprint is the SHA-256 of the certificate, hexadecimal.
	Fingerprint string
	// Problems say why Load would refuse the file.
	Problems []string
	// Warnings say what should be done soon. The kind of each has advice.
	Warnings []error
	// Notes say what is wrong with a key that nothing in this directory uses.
	Notes []string
}

// Show describes what a directory of keys holds, one Entry for each certificate. The error is not
// nil only if the directory cannot be read or holds nothing of ours. What is wrong with a file is in
// the Problems of its Entry.
//
// Only ca.pem, sender.pem, node.pem, warmer.pem and viewer.pem are used where they lie. A key of another name waits there to be
// copied; that it is revoked or has ended is in its Notes. If ca.key is there, the certificates that were
// issued and are in no file come last.
func Show(dir string) ([]Entry, error) {
	s := shower{dir: dir, now: time.Now()}
	s.ca, s.caErr = readCA(dir)
	if s.ca == nil {
		s.ca = &keyFile{path: filepath.Join(dir, caFile)}
	}
	var listErr error
	s.revoked, listErr = loadRevoked(dir)
	var entries []Entry
	for _, name := range append([]string{caFile, caKeyFile}, certFiles(dir)...) {
		entries = append(entries, s.file(name)...)
	}
	if len(entries) == 0 {
		return nil, &NotFoundError{Places: []string{dir}}
	}
	if listErr != nil {
		entries = append(entries, Entry{File: filepath.Join(dir, revokedFile), Problems: []string{listErr.Error()}})
	}
	if slices.ContainsFunc(entries, func(e Entry) bool { return filepath.Base(e.File) == caKeyFile }) {
		entries = append(entries, s.elsewhere(entries)...)
	}
	return entries, nil
}

// elsewhere returns the certificates that were issued and are none of entries.
func (s *shower) elsewhere(entries []Entry) []Entry {
	list, err := loadIssued(s.dir)
	if err != nil {
		return []Entry{{File: filepath.Join(s.dir, issuedFile), Problems: []string{err.Error()}}}
	}
	seen := map[string]bool{}
	for _, e := range entries {
		seen[e.Serial] = true
	}
	var more []Entry
	for _, i := range list {
		if seen[i.Serial] {
			continue
		}
		state := "issued"
		switch {
		case s.now.After(i.Until):
			state = "ended"
		case s.revoked.whyOf(i.Serial, Peer{Role: i.Role, Name: i.Name}) != nil:
			state = "revoked"
		}
		more = append(more, Entry{State: state, Role: string(i.Role), Name: i.Name, NotBefore: i.From, NotAfter: i.Until, Serial: i.Serial})
	}
	return more
}

// shower judges the files of a directory.
type shower struct {
	dir     string
	now     time.Time
	ca      *keyFile
	caErr   error
	revoked *revoked // nil if it cannot be read
}

func (s *shower) file(name string) []Entry {
	ca := s.ca
	file, err := read(s.dir, name)
	var keyErr *KeyError
	if errors.As(err, &keyErr) && keyErr.Problem == Missing {
		return nil
	}
	blank := Entry{File: filepath.Join(s.dir, name)}
	if err != nil {
		blank.Problems = append(blank.Problems, err.Error())
	}
	if name == caKeyFile {
		blank.Role = string(authority)
		if file != nil && (file.key == nil || signer(ca.certs, file.key) == nil) {
			blank.Problems = append(blank.Problems, "it is the key of no certificate in ca.pem")
		}
	}
	if file == nil || name == caKeyFile || len(file.certs) == 0 {
		return []Entry{blank}
	}
	var entries []Entry
	for i, cert := range file.certs {
		e := blank
		sum := sha256.Sum256(cert.Raw)
		e.NotBefore, e.NotAfter, e.Fingerprint, e.Serial = cert.NotBefore, cert.NotAfter, hex.EncodeToString(sum[:]), serial(cert)
		peer, _ := certPeer(cert)
		e.Role, e.Name, e.Cluster = string(peer.Role), peer.Name, peer.Cluster
		switch {
		case name == caFile:
			s.authority(&e, cert)
		case i == 0:
			s.issued(&e, file, name)
		}
		entries = append(entries, e)
	}
	return entries
}

// authority judges a certificate in ca.pem.
func (s *shower) authority(e *Entry, cert *x509.Certificate) {
	var err error
	switch {
	case s.caErr != nil:
		err = s.caErr
	case s.revoked.why(cert) != nil:
		e.Warnings = append(e.Warnings, fmt.Errorf("an authority in %s is revoked: %s; nothing that it signed is good", e.File, s.revoked.why(cert)))
	case s.now.After(cert.NotAfter) && len(s.ca.certs) > 1:
		e.Warnings = append(e.Warnings, errkind.Errorf("authority-old", "an authority in %s has ended, and there is another", e.File))
	case s.now.After(cert.NotAfter):
		err = &KeyError{File: e.File, Problem: Expired}
	case s.now.Before(cert.NotBefore):
		err = &KeyError{File: e.File, Problem: NotYetValid}
	case EndsSoon(cert.NotAfter, s.now):
		end := End{"the authority in " + e.File, cert.NotAfter}
		if s.succeeded(cert) {
			e.Warnings = append(e.Warnings, errkind.Errorf("authority-follows", "%s; there is another", end.String(s.now)))
		} else {
			e.Warnings = append(e.Warnings, errkind.Errorf("authority-ends", "%s", end.String(s.now)))
		}
	}
	if err != nil {
		e.Problems = append(e.Problems, err.Error())
	}
}

// succeeded reports whether there is another authority that lasts longer than Soon.
func (s *shower) succeeded(cert *x509.Certificate) bool {
	return slices.ContainsFunc(s.ca.certs, func(c *x509.Certificate) bool { return c != cert && !EndsSoon(c.NotAfter, s.now) })
}

// issued judges the holder's certificate in a file of a role.
func (s *shower) issued(e *Entry, file *keyFile, name string) {
	role := roles[slices.IndexFunc(roles, func(r Role) bool { return name == roleFile(r) || strings.HasPrefix(name, namedPrefix(r)) })]
	_, err := file.check(role, s.ca, s.now)
	why := s.revoked.why(file.certs[0])
	if err == nil && why != nil {
		err = &KeyError{File: e.File, Problem: Revoked, Detail: why.String()}
	}
	var key *KeyError
	over := errors.As(err, &key) && key.File == file.path && (key.Problem == Revoked || key.Problem == Expired)
	switch used := name == roleFile(role); {
	case over && !used:
		e.Notes = append(e.Notes, err.Error())
	case err != nil:
		e.Problems = append(e.Problems, err.Error())
	case EndsSoon(e.NotAfter, s.now):
		e.Warnings = append(e.Warnings, errkind.Errorf("key-ends", "%s", End{"the certificate in " + e.File, e.NotAfter}.String(s.now)))
	}
}

// escape makes a path literal for filepath.Glob.
func escape(path string) string {
	var out []rune
	for _, r := range path {
		switch r {
		case '*', '?', '[', '\\':
			out = append(out, '\\')
		}
		out = append(out, r)
	}
	return string(out)
}
