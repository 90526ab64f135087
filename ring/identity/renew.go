package identity

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"
)

// issued are the names of the files in dir that hold issued certificates: sender.pem, node.pem, and
// those of more senders and of named nodes.
func issued(dir string) []string {
	var names []string
	for _, role := range []Role{Sender, Node} {
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

// Add issues certificates with names for senders or nodes, each with a private key of its own, in
// sender-NAME.pem or node-NAME.pem. dir must hold ca.pem and ca.key. It never replaces a file:
// a *KeyError with Exists names the first that is in the way; after an error nothing new is left.
func Add(dir string, role Role, names []string, opts InitOptions) error {
	if err := opts.defaults(); err != nil {
		return err
	}
	a, err := opts.loadCA(dir)
	if err != nil {
		return err
	}
	list, err := loadRevoked(dir)
	if err != nil {
		return err
	}
	if own, err := read(dir, roleFile(role)); err == nil && len(own.certs) > 0 {
		// Two senders of one name could not be told apart in a log, nor revoked by name.
		if peer, err := certPeer(own.certs[0]); err == nil && peer.Name != "" {
			for _, name := range names {
				if strings.EqualFold(name, peer.Name) {
					return inTheWay(dir, roleFile(role))
				}
			}
		}
	}
	var files []newFile
	seen := map[string]bool{}
	for _, name := range names {
		if err := checkName(name); err != nil {
			return err
		}
		if seen[name] {
			continue
		}
		seen[name] = true
		peer := Peer{Role: role, Name: name, Cluster: opts.Cluster}
		if err := list.forbids(peer); err != nil {
			return err
		}
		data, err := opts.issue(a, peer)
		if err != nil {
			return err
		}
		files = append(files, newFile{namedFile(role, name), 0o600, data})
	}
	return place(dir, files)
}

// forbids is the error of issuing a certificate that the list would refuse by its name.
func (l *revoked) forbids(peer Peer) error {
	for i, r := range l.entries {
		if r.Serial == "" && r.of(nil, peer) {
			return &KeyError{File: l.path, Problem: Revoked, Detail: fmt.Sprintf("line %d revokes the name %s, also of new certificates", l.lines[i], r),
				hint: "remove the line there and on all machines, and revoke the old certificate by its serial number"}
		}
	}
	return nil
}

// Renew issues certificates again, with new private keys, for the roles and names of those in
// dir: of all files, or of those that which names, as "sender", "node", a name, or the name of
// a file. What was issued before stays good until it ends, so that hosts can follow one by one. Each file
// is replaced in one step, and all are written before the first is. Authorities that have ended
// are taken out of ca.pem. It returns the files that are new, and the ones that were left as they
// are because their name is revoked.
func Renew(dir string, which []string, opts InitOptions) (renewed, left []string, err error) {
	if err := opts.defaults(); err != nil {
		return nil, nil, err
	}
	a, err := opts.loadCA(dir)
	if err != nil {
		return nil, nil, err
	}
	if EndsSoon(a.cert.NotAfter, opts.Now) {
		return nil, nil, &KeyError{File: filepath.Join(dir, caFile), Problem: EndsTooSoon, Detail: "on " + a.cert.NotAfter.UTC().Format(time.DateOnly) + ", and with it all that it signs",
			hint: "replace the authority first, here on the server: dolly-img keys renew --ca"}
	}
	list, err := loadRevoked(dir)
	if err != nil {
		return nil, nil, err
	}
	wanted := map[string]bool{}
	for _, w := range which {
		wanted[w] = false
	}
	var files []newFile
	for _, name := range issued(dir) {
		file, err := read(dir, name)
		if err != nil {
			return nil, nil, err
		}
		if len(file.certs) == 0 {
			return nil, nil, &KeyError{File: file.path, Problem: Malformed, Detail: "no certificate"}
		}
		peer, err := certPeer(file.certs[0])
		switch {
		case err != nil:
			return nil, nil, &KeyError{File: file.path, Problem: Malformed, Err: err}
		case !chosen(wanted, name, peer):
			continue
		case peer.Cluster != opts.Cluster:
			return nil, nil, &KeyError{File: file.path, Problem: Foreign, Detail: fmt.Sprintf("it is of cluster %q, the authority of %q", peer.Cluster, opts.Cluster)}
		case list.forbids(peer) != nil:
			left = append(left, name)
			continue
		}
		data, err := opts.issue(a, peer)
		if err != nil {
			return nil, nil, err
		}
		files = append(files, newFile{name, 0o600, data})
		renewed = append(renewed, name)
	}
	for _, w := range which {
		if !wanted[w] {
			return nil, nil, fmt.Errorf("%q: no certificate in %s has this name", w, dir)
		}
	}
	ca, err := readCA(dir)
	if err != nil {
		return nil, nil, err
	}
	if data, fewer := opts.authorities(ca); fewer {
		files = append(files, newFile{caFile, 0o644, data})
	}
	return renewed, left, replace(dir, files)
}

// chosen tells whether wanted names the file, and notes that it did; nothing wanted is all.
func chosen(wanted map[string]bool, file string, peer Peer) bool {
	hit := len(wanted) == 0
	for w := range wanted {
		if w == file || w == strings.TrimSuffix(file, ".pem") || peer.Name != "" && (strings.EqualFold(w, peer.Name) || w == string(peer.Role)+"/"+peer.Name) {
			wanted[w], hit = true, true
		}
	}
	return hit
}

// authorities is ca.pem without those that have ended; fewer says that it differs.
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

// RenewCA makes a new authority of the same cluster beside the one in dir: ca.pem then holds both, so
// that who has it believes certificates of either, and ca.key is the new one's. The certificates
// that were issued stay as they are, and good: Renew replaces them, once every host has the new ca.pem.
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
	// ca.pem comes first: between the two it has the certificates of both keys.
	return replace(dir, []newFile{
		{caFile, 0o644, bytes.Join([][]byte{certPEM(next.cert.Raw), old}, nil)},
		{caKeyFile, 0o600, next.keyPEM},
	})
}

// keepOwner gives temp the owner of path, where that is somebody else's: who could read a key that
// root renews can read the new one.
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

// replace writes files under their names in place of what is there: each is complete and durable
// under a temporary name before the first of them appears.
func replace(dir string, files []newFile) error {
	temps := make([]string, len(files))
	for i, f := range files {
		temp, err := writeTemp(dir, f)
		if err != nil {
			return err
		}
		defer os.Remove(temp) // where it was not renamed
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
