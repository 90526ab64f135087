package node

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/cachedir"
	"github.com/dolly-img/dolly-img/ring/bytesize"
	"github.com/dolly-img/dolly-img/ring/errkind"
	"github.com/dolly-img/dolly-img/ring/identity"
)

// Fact is one part of the configuration, or the error that keeps it from being used.
type Fact struct {
	What, Text string
	Err        error
}

// report is what Check finds out.
type report struct {
	facts    []Fact
	warnings []string
}

func (r *report) line(what, text string, err error) { r.facts = append(r.facts, Fact{what, text, err}) }

// Check returns the configuration that a node would have, with its mirror at mirrorAt and its metrics at metricsAt, and everything that
// would keep the node from its start. It does not listen and makes no files.
func Check(c Config, mirrorAt, metricsAt string) (facts []Fact, warnings []string) {
	var r report
	dir := r.keys(c)
	policy := r.policy(dir)
	where, err := cachedir.Dir(c.Cache)
	if err == nil {
		err = checkCache(where)
	}
	r.line("cache", where, err)
	if err == nil {
		r.warnings = append(r.warnings, tooLittle(policy, where)...)
	}
	r.line("listen", c.Listen, checkAddress("listen on", c.Listen))
	if mirrorAt != "" {
		r.line("mirror", mirrorAt, checkMirror(mirrorAt))
		r.warnings = append(r.warnings, openMirror(mirrorAt, policy)...)
	}
	if metricsAt != "" {
		r.line("metrics", metricsAt, checkAddress("metrics on", metricsAt))
	}
	return r.facts, r.warnings
}

// keys looks at the keys, and returns their directory or "".
func (r *report) keys(c Config) (dir string) {
	dir, missing := nodeKeys(c.Keys)
	if missing != nil {
		r.line("keys", "", missing)
		if dir = c.Keys; dir == "" {
			return ""
		}
	}
	id, err := identity.Load(dir, identity.Node)
	if err == nil {
		own, authority := id.Until()
		r.line("keys", fmt.Sprintf("%s: the key %s of cluster %s, until %s, authority until %s", dir, holder(id.Peer), id.Cluster,
			own.UTC().Format(time.DateOnly), authority.UTC().Format(time.DateOnly)), nil)
		r.line("revoked", fmt.Sprintf("%d entries", id.Revocations()), nil)
		for _, end := range id.Ending(time.Now()) {
			r.warnings = append(r.warnings, end.String(time.Now())+"; "+c.Hint(ending(end, time.Now())))
		}
		return dir
	}
	for _, err := range each(err) {
		key := new(identity.KeyError)
		if missing == nil || errors.As(err, &key) && key.Problem != identity.Missing { // no keys were found, which was said
			r.line("keys", "", err)
		}
	}
	return dir
}

// policy looks at the policy in the directory of the keys. It returns nil if that has errors.
func (r *report) policy(dir string) *identity.Policy {
	if dir == "" {
		return nil
	}
	policy, err := identity.LoadPolicy(dir)
	if err != nil {
		for _, err := range each(err) {
			r.line("policy", "", err)
		}
		return nil
	}
	_, err = cacheAccess(policy)
	r.line("policy", policyText(policy), err)
	r.warnings = append(r.warnings, policyWarnings(policy)...)
	return policy
}

// each returns the errors that err joins, or err alone.
func each(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}

// tooLittle warns if the policy leaves no room for any image in the cache. The directory dir need not exist.
func tooLittle(p *identity.Policy, dir string) []string {
	if p == nil || p.Cache.Free == 0 {
		return nil
	}
	for {
		var fs unix.Statfs_t
		err := unix.Statfs(dir, &fs)
		if err == unix.ENOENT && dir != filepath.Dir(dir) {
			dir = filepath.Dir(dir)
			continue
		}
		size := int64(fs.Blocks) * fs.Bsize
		if err != nil || p.Cache.Free < size {
			return nil
		}
		return []string{fmt.Sprintf("[cache] free = %s: the file system of the cache has %s in all, so no image fits", bytesize.Text(p.Cache.Free), bytesize.Text(size))}
	}
}

// openMirror warns if people can reach the mirror who may not read the cache. The mirror does not ask who they are.
func openMirror(addr string, p *identity.Policy) []string {
	a, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil { // this is a socket in the file system, which has a mode, or an error that was reported already
		return nil
	}
	local := fmt.Sprintf("127.0.0.1:%d", a.Port)
	switch {
	case len(a.IP) == 0 || a.IP.IsUnspecified():
		return []string{fmt.Sprintf("mirror on %s: every machine that reaches this node can read the images in its cache, without a key; for the runtimes of this node %s is enough", addr, local)}
	case !a.IP.IsLoopback():
		return []string{fmt.Sprintf("mirror on %s: every machine that reaches this address can read the images in the cache, without a key; for the runtimes of this node %s is enough", addr, local)}
	case p != nil && p.Cache.Mode != 0 && p.Cache.Mode&0o004 == 0:
		return []string{fmt.Sprintf("mirror on %s: every user of this node reaches it, though [cache] mode = \"%#o\" lets only some read the cache; unix:PATH is a mirror that has a mode", addr, p.Cache.Mode)}
	}
	return nil
}

// checkCache returns what would keep the cache in dir from being opened. It makes no cache.
func checkCache(dir string) error {
	names, err := os.ReadDir(dir)
	switch {
	case err == nil && len(names) > 0:
		_, err := cache.Open(dir)
		return err
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("cache: %w", err)
	}
	for there := dir; ; there = filepath.Dir(there) {
		err := unix.Access(there, unix.W_OK|unix.X_OK)
		if err == unix.ENOENT && there != filepath.Dir(there) {
			continue
		}
		if err != nil {
			return errkind.Errorf("cache-elsewhere", "cache %s: %s: %w", dir, there, err)
		}
		return nil
	}
}

// checkAddress returns an error if addr is no address of this host. It does not try whether the port is free, because a
// running daemon may have it.
func checkAddress(what, addr string) error {
	a, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return errkind.Errorf("address-malformed", "%s %s: %w", what, addr, bare(err))
	}
	// Binding shows whether the address is one of this host. The socket is UDP, so that nothing listens.
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: a.IP, Zone: a.Zone})
	if err != nil {
		return errkind.Errorf("address-foreign", "%s %s: %w", what, addr, bare(err))
	}
	return c.Close()
}

func checkMirror(addr string) error {
	path, ok := strings.CutPrefix(addr, "unix:")
	if !ok {
		return checkAddress("mirror on", addr)
	}
	if err := unix.Access(filepath.Dir(path), unix.W_OK|unix.X_OK); err != nil {
		return fmt.Errorf("mirror on %s: %s: %w", addr, filepath.Dir(path), err)
	}
	return nil
}
