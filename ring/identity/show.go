package identity

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"path/filepath"
	"sort"
	"time"
)

// An Entry describes one certificate, or a file that holds none.
type Entry struct {
	File                string // path
	Role                string // "ca", "sender" or "node"; "" if unknown
	Name                string // "" in the key shared by all nodes
	Cluster             string
	NotBefore, NotAfter time.Time
	Fingerprint         string   // SHA-256 of the certificate, hex
	Problems            []string // why Load would refuse it; nil: none
}

// Show describes what a directory of keys holds, one Entry a certificate. It is an
// error only if the directory cannot be read or holds nothing of ours; what is wrong
// with a file is in the Problems of its Entry.
func Show(dir string) ([]Entry, error) {
	names := []string{caFile, caKeyFile, senderFile, nodeFile}
	named, err := filepath.Glob(filepath.Join(escape(dir), "node-*.pem"))
	if err != nil {
		return nil, err
	}
	sort.Strings(named)
	for _, path := range named {
		names = append(names, filepath.Base(path))
	}
	ca, caErr := readCA(dir)
	if ca == nil {
		ca = &keyFile{path: filepath.Join(dir, caFile)}
	}
	var entries []Entry
	for _, name := range names {
		entries = append(entries, show(dir, name, ca, caErr)...)
	}
	if len(entries) == 0 {
		return nil, &NotFoundError{Places: []string{dir}}
	}
	return entries, nil
}

func show(dir, name string, ca *keyFile, caErr error) []Entry {
	file, err := read(dir, name)
	var keyErr *KeyError
	if errors.As(err, &keyErr) && keyErr.Problem == Missing {
		return nil
	}
	blank := Entry{File: filepath.Join(dir, name)}
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
		e.NotBefore, e.NotAfter, e.Fingerprint = cert.NotBefore, cert.NotAfter, hex.EncodeToString(sum[:])
		peer, err := certPeer(cert)
		e.Role, e.Name, e.Cluster = string(peer.Role), peer.Name, peer.Cluster
		now := time.Now()
		switch {
		case name == caFile && caErr != nil:
			err = caErr
		case name == caFile && now.After(cert.NotAfter):
			err = &KeyError{File: e.File, Problem: Expired}
		case name == caFile && now.Before(cert.NotBefore):
			err = &KeyError{File: e.File, Problem: NotYetValid}
		case name != caFile && i == 0:
			role := Node
			if name == senderFile {
				role = Sender
			}
			_, err = file.check(role, ca, now)
		}
		if err != nil {
			e.Problems = append(e.Problems, err.Error())
		}
		entries = append(entries, e)
	}
	return entries
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
