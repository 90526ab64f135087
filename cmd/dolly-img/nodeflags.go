package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/spf13/cobra"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/identity"
)

// nodeFlags are those of daemon and receive.
type nodeFlags struct {
	listen  string
	cache   string
	keys    string
	verbose bool
}

// add defines them; verbose is what the log has more of with -v.
func (f *nodeFlags) add(cmd *cobra.Command, verbose string) {
	fl := cmd.Flags()
	fl.StringVar(&f.listen, "listen", ":"+strconv.Itoa(ring.DefaultPort), "`ADDRESS` to listen on; port 0 takes a free one, the log says which")
	addCacheFlag(cmd, &f.cache)
	fl.StringVar(&f.keys, "keys", "", "`DIR` of the keys and of policy.toml (default $DOLLY_IMG_KEYS, /etc/dolly-img/keys, the user's)")
	fl.BoolVarP(&f.verbose, "verbose", "v", false, "log also "+verbose)
}

func addCacheFlag(cmd *cobra.Command, dir *string) {
	cmd.Flags().StringVar(dir, "cache", "", "`DIR` of the cache (default /var/lib/dolly-img/cache for root, else the user's cache directory)")
}

const systemCache = "/var/lib/dolly-img/cache"

// cacheDir is where the cache is when --cache does not say: what systemd made for
// the unit, the place of root, or the user's.
func cacheDir(flag string) (string, error) {
	// systemd separates several directories by colons; the unit has one of each.
	state, _, _ := strings.Cut(os.Getenv("STATE_DIRECTORY"), ":")
	switch {
	case flag != "":
		return flag, nil
	case state != "":
		return filepath.Join(state, "cache"), nil
	case os.Geteuid() == 0:
		return systemCache, nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", hintf("name it with --cache DIR", "cache: %w", err)
	}
	return filepath.Join(dir, "dolly-img"), nil
}

// readableCacheDir is the same for commands that only look: a user without a cache
// of his own sees the node's.
func readableCacheDir(flag string) (string, error) {
	dir, err := cacheDir(flag)
	if flag != "" {
		return dir, err
	}
	return orOf(dir, err, systemCache)
}

// orOf is the user's own cache, or the node's where he has none: a job may run without a
// home, or with one of somebody else that it may not look into.
func orOf(own string, err error, node string) (string, error) {
	if err == nil {
		names, unread := os.ReadDir(own)
		if len(names) > 0 || unread != nil && !errors.Is(unread, fs.ErrNotExist) && !errors.Is(unread, fs.ErrPermission) {
			return own, nil
		}
	}
	if _, none := os.Stat(node); none == nil {
		return node, nil
	}
	return own, err
}

// cacheLimits are those of the policy file beside the keys, for a server's own cache as for a node's.
func cacheLimits(keys string) (cache.Limits, error) {
	dir, err := identity.Find(keys)
	if err != nil {
		return cache.Limits{}, err
	}
	policy, err := identity.LoadPolicy(dir)
	if err != nil {
		return cache.Limits{}, err
	}
	return cache.Limits{Max: policy.Cache.Max, Free: policy.Cache.Free}, nil
}

// cacheAccess is who may read the cache of a node by its policy.
func cacheAccess(p *identity.Policy) (cache.Access, error) {
	a := cache.Access{Mode: p.Cache.Mode, GID: -1}
	if p.Cache.Group == "" {
		return a, nil
	}
	owner, err := resolveOwner(":" + p.Cache.Group)
	if err != nil {
		return a, hintf("name a group of this machine in [cache] of policy.toml", "cache: group: %w", err)
	}
	a.GID = owner.GID
	return a, nil
}

// listen takes the sockets systemd hands over, else opens its own.
func listen(addr string) ([]net.Listener, error) {
	handed, err := activation.Listeners()
	if err != nil {
		return nil, fmt.Errorf("socket from systemd: %w", err)
	}
	var usable []net.Listener
	for _, l := range handed {
		if l != nil { // one that is no stream socket
			usable = append(usable, l)
		}
	}
	if len(usable) > 0 {
		return usable, nil
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, hintf("another daemon may run here; --listen ADDR:PORT names another port", "listen on %s: %w", addr, bare(err))
	}
	return []net.Listener{l}, nil
}

// bare is the system's own word in an error of package net, which says the rest twice.
func bare(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

// nodeLog is key=value lines. The journal has its own clock.
func nodeLog(w io.Writer, verbose bool) *slog.Logger {
	o := &slog.HandlerOptions{Level: slog.LevelInfo}
	if verbose {
		o.Level = slog.LevelDebug
	}
	if os.Getenv("JOURNAL_STREAM") != "" {
		o.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// limitMemory keeps a node small: it lives beside the jobs it serves. Half of the limit
// is the ring's window, which by default the collector would let grow to twice its
// size before it looks. Whoever sets GOMEMLIMIT knows better.
func limitMemory() {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(56 << 20)
	}
}
