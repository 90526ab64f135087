package identity

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

// certFiles returns the names of the files in dir that hold issued certificates: ROLE.pem and ROLE-NAME.pem of
// each role.
func certFiles(dir string) []string {
	var names []string
	for _, role := range roles {
		if _, err := os.Lstat(filepath.Join(dir, roleFile(role))); err == nil {
			names = append(names, roleFile(role))
		}
		named, _ := filepath.Glob(filepath.Join(escape(dir), namedFile(role, "*"))) // the pattern is good
		sort.Strings(named)
		for _, path := range named {
			names = append(names, filepath.Base(path))
		}
	}
	return names
}

// Add issues certificates of a role with names, each with a private key of its own, in ROLE-NAME.pem. dir must hold ca.pem and ca.key. Add replaces no file.
//
// It returns the names of the files that it made, and of those that were there and are good for their
// names, so that it can be repeated for a list that has become longer. It is an error if a name cannot be
// issued, or if its file is there and is not good. Add joins these errors, and makes the files of all other
// names.
func Add(dir string, role Role, names []string, opts InitOptions) (made, there []string, err error) {
	if err := opts.defaults(); err != nil {
		return nil, nil, err
	}
	for _, name := range names {
		if err := checkName(name); err != nil {
			return nil, nil, err
		}
	}
	a, err := opts.loadCA(dir)
	if err != nil {
		return nil, nil, err
	}
	s, err := newAdder(dir, role, opts)
	if err != nil {
		return nil, nil, err
	}
	if err := record(dir); err != nil { // if this does not work, nothing may be made
		return nil, nil, err
	}
	var files []newFile
	var bad []error
	seen := map[string]bool{}
	for _, name := range names {
		if seen[name] {
			continue
		}
		seen[name] = true
		switch exists, err := s.exists(name); {
		case err != nil:
			bad = append(bad, err)
			continue
		case exists:
			there = append(there, namedFile(role, name))
			continue
		}
		data, err := opts.issue(a, Peer{Role: role, Name: name, Cluster: opts.Cluster})
		if err != nil {
			return nil, nil, err
		}
		files = append(files, newFile{namedFile(role, name), 0o600, data})
		made = append(made, namedFile(role, name))
	}
	if err := place(dir, files); err != nil {
		return nil, nil, err
	}
	return made, there, errors.Join(append(bad, record(dir))...)
}

// adder decides whether a name can be issued in a directory.
type adder struct {
	dir     string
	role    Role
	now     time.Time
	cluster string
	ca      *keyFile
	revoked *revoked
	own     string // the name in the file of the role, or ""
}

func newAdder(dir string, role Role, opts InitOptions) (*adder, error) {
	s := &adder{dir: dir, role: role, now: opts.Now, cluster: opts.Cluster}
	var err error
	if s.ca, err = readCA(dir); err != nil {
		return nil, err
	}
	if s.revoked, err = loadRevoked(dir); err != nil {
		return nil, err
	}
	if own, err := read(dir, roleFile(role)); err == nil && len(own.certs) > 0 {
		if peer, err := certPeer(own.certs[0]); err == nil {
			s.own = peer.Name
		}
	}
	return s, nil
}

// exists reports whether there is a good key of name already. It is an error if the key cannot be made,
// or if the file that is there is not good.
func (s *adder) exists(name string) (bool, error) {
	want := Peer{Role: s.role, Name: name, Cluster: s.cluster}
	if err := s.revoked.forbids(want, errkind.Kind("name-revoked"), ""); err != nil {
		return false, err
	}
	// Two holders of one role and name could not be told apart in a log, nor revoked by name.
	if s.own != "" && strings.EqualFold(name, s.own) {
		return false, inTheWay(s.dir, roleFile(s.role))
	}
	file, err := read(s.dir, namedFile(s.role, name))
	var missing *KeyError
	if errors.As(err, &missing) && missing.Problem == Missing {
		return false, nil
	}
	if err != nil {
		return true, err
	}
	peer, err := file.check(s.role, s.ca, s.now)
	if err != nil {
		return true, err
	}
	if peer != want {
		return true, &KeyError{File: file.path, Problem: Exists, Detail: "it is the key of " + peer.String(), kind: errkind.Kind("key-exists")}
	}
	if why := s.revoked.why(file.certs[0]); why != nil {
		return true, &KeyError{File: file.path, Problem: Revoked, Detail: why.String(), kind: errkind.Kind("key-revoked"), about: name}
	}
	return true, nil
}

// forbids returns an error if the list would refuse, by its name, a certificate that was issued for peer.
func (l *revoked) forbids(peer Peer, kind errkind.Kind, about string) error {
	why := l.whyOf("", peer)
	if why == nil {
		return nil
	}
	return &KeyError{File: l.path, Problem: Revoked, Detail: fmt.Sprintf("line %d revokes the name %s, also of new certificates", why.line, why.Revocation),
		kind: kind, about: about}
}

// A Renewal is a file with a certificate, and the certificate that was in it before.
type Renewal struct {
	// File is the name of the file.
	File string
	Was  Issued
}

// Renew issues certificates again, with new private keys, for the roles and names of those in
// dir. It does so for all files, or for those that which names: a role, a name, or the
// name of a file. It takes authorities that have ended out of ca.pem.
//
// What was issued before stays good until it ends, so that hosts can follow one by one. Renew replaces
// each file in one step, and has written all of them before it replaces the first.
//
// It returns the files that are new, and those that it left as they are because their name is
// revoked. If which asks for one of those, that is an error.
func Renew(dir string, which []string, opts InitOptions) (renewed, left []Renewal, err error) {
	if err := opts.defaults(); err != nil {
		return nil, nil, err
	}
	a, err := opts.loadCA(dir)
	if err != nil {
		return nil, nil, err
	}
	if EndsSoon(a.cert.NotAfter, opts.Now) {
		return nil, nil, &KeyError{File: filepath.Join(dir, caFile), Problem: EndsTooSoon, Detail: "on " + a.cert.NotAfter.UTC().Format(time.DateOnly) + ", and with it all that it signs",
			kind: errkind.Kind("authority-first")}
	}
	chosen, err := choose(dir, which)
	if err != nil {
		return nil, nil, err
	}
	list, err := loadRevoked(dir)
	if err != nil {
		return nil, nil, err
	}
	if err := record(dir); err != nil { // later nothing tells which certificates were replaced
		return nil, nil, err
	}
	var files []newFile
	for _, c := range chosen {
		renewal := Renewal{c.name, Issued{serial(c.cert), c.peer.Role, c.peer.Name, c.cert.NotBefore, c.cert.NotAfter}}
		if c.peer.Cluster != opts.Cluster {
			return nil, nil, &KeyError{File: c.path, Problem: Foreign, Detail: fmt.Sprintf("it is of cluster %q, the authority of %q", c.peer.Cluster, opts.Cluster)}
		}
		if err := list.forbids(c.peer, errkind.Kind("name-use-again"), renewal.Was.Serial); err != nil {
			if len(which) > 0 {
				return nil, nil, err
			}
			left = append(left, renewal)
			continue
		}
		data, err := opts.issue(a, c.peer)
		if err != nil {
			return nil, nil, err
		}
		files = append(files, newFile{c.name, 0o600, data})
		renewed = append(renewed, renewal)
	}
	ca, err := readCA(dir)
	if err != nil {
		return nil, nil, err
	}
	if data, fewer := opts.authorities(ca); fewer {
		files = append(files, newFile{caFile, 0o644, data})
	}
	if err := replace(dir, files); err != nil {
		return nil, nil, err
	}
	return renewed, left, record(dir)
}

// A choice is a certificate to renew.
type choice struct {
	name, path string
	cert       *x509.Certificate
	peer       Peer
}

// choose finds the certificates in dir that which names, or all of them if it is empty.
func choose(dir string, which []string) ([]choice, error) {
	wanted := map[string]bool{}
	for _, w := range which {
		wanted[w] = false
	}
	var list []choice
	var names []string // that could be chosen
	for _, name := range certFiles(dir) {
		file, err := read(dir, name)
		if err != nil {
			return nil, err
		}
		if len(file.certs) == 0 {
			return nil, &KeyError{File: file.path, Problem: Malformed, Detail: "no certificate"}
		}
		peer, err := certPeer(file.certs[0])
		if err != nil {
			return nil, &KeyError{File: file.path, Problem: Malformed, Err: err}
		}
		names = append(names, strings.TrimSuffix(name, ".pem"))
		if peer.Name != "" {
			names = append(names, peer.Name)
		}
		if chosen(wanted, name, peer) {
			list = append(list, choice{name, file.path, file.certs[0], peer})
		}
	}
	for _, w := range which {
		if near := nearest(w, names); !wanted[w] && near != "" {
			return nil, errkind.About("key-near", near, "%q: no certificate in %s has this name", w, dir)
		} else if !wanted[w] {
			return nil, errkind.Errorf("key-names", "%q: no certificate in %s has this name", w, dir)
		}
	}
	return list, nil
}

// chosen reports whether wanted names the file, and notes in wanted that it did. An empty one names all.
func chosen(wanted map[string]bool, file string, peer Peer) bool {
	hit := len(wanted) == 0
	for w := range wanted {
		if w == file || w == strings.TrimSuffix(file, ".pem") || peer.Name != "" && (strings.EqualFold(w, peer.Name) || w == string(peer.Role)+"/"+peer.Name) {
			wanted[w], hit = true, true
		}
	}
	return hit
}

// authorities returns ca.pem without the authorities that have ended. Fewer says that there were some.
func (o *InitOptions) authorities(ca *keyFile) (data []byte, fewer bool) {
	for _, cert := range ca.certs {
		if o.Now.After(cert.NotAfter) {
			fewer = true
			continue
		}
		data = append(data, certPEM(cert.Raw)...)
	}
	return data, fewer
}

// RenewCA makes a new authority of the same cluster beside the one in dir. ca.pem then holds both, so
// that a host that has it believes certificates of either, and ca.key is the key of the new one. The
// certificates that were issued stay as they are, and good. Once every host has the new ca.pem, Renew
// replaces them.
func RenewCA(dir string, opts InitOptions) error {
	if err := opts.defaults(); err != nil {
		return err
	}
	ca, err := readCA(dir)
	if err != nil {
		return err
	}
	if _, err := opts.readCAKey(dir, ca); err != nil {
		return err
	}
	next, err := opts.newCA()
	if err != nil {
		return err
	}
	old, _ := opts.authorities(ca)
	if err := record(dir); err != nil {
		return err
	}
	// ca.pem comes first, so that it always has the certificate of the key in ca.key.
	err = replace(dir, []newFile{
		{caFile, 0o644, bytes.Join([][]byte{certPEM(next.cert.Raw), old}, nil)},
		{caKeyFile, 0o600, next.keyPEM},
	})
	if err != nil {
		return err
	}
	return record(dir)
}

// keepOwner gives temp the owner of path, if that belongs to another user. So a user who could read a key
// that root renews can read the new one.
func keepOwner(temp, path string) error {
	was, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	is, err := os.Stat(temp)
	if err != nil {
		return err
	}
	old, ok := was.Sys().(*syscall.Stat_t)
	now, same := is.Sys().(*syscall.Stat_t)
	if !ok || !same || old.Uid == now.Uid && old.Gid == now.Gid {
		return nil
	}
	return os.Chown(temp, int(old.Uid), int(old.Gid))
}

// replace writes files under their names in place of what is there. Each is complete and durable
// under a temporary name before the first of them appears.
func replace(dir string, files []newFile) error {
	temps := make([]string, len(files))
	for i, f := range files {
		temp, err := writeTemp(dir, f)
		if err != nil {
			return err
		}
		defer os.Remove(temp) // for a file that was not renamed
		temps[i] = temp
		if err := keepOwner(temp, filepath.Join(dir, f.name)); err != nil {
			return err
		}
	}
	for i, f := range files {
		if err := os.Rename(temps[i], filepath.Join(dir, f.name)); err != nil {
			return err
		}
	}
	return syncDir(dir)
}
