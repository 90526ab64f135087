package cachedir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/ring/errkind"
	"github.com/dolly-img/dolly-img/ring/identity"
)

// System is the cache of root, and of most daemons.
const System = "/var/lib/dolly-img/cache"

// Dir returns the directory of the cache: the one that the user named, or else that of the systemd unit, of root, or of
// the user.
func Dir(flag string) (string, error) {
	// systemd separates several directories by colons. The cache is in the first.
	state, _, _ := strings.Cut(os.Getenv("STATE_DIRECTORY"), ":")
	switch {
	case flag != "":
		return flag, nil
	case state != "":
		return filepath.Join(state, "cache"), nil
	case os.Geteuid() == 0:
		return System, nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", errkind.Errorf("cache-homeless", "cache: %w", err)
	}
	return filepath.Join(dir, "dolly-img"), nil
}

// readable is Dir for commands that only read: a user without a cache of his own sees the node's.
func readable(flag string) (string, error) {
	dir, err := Dir(flag)
	if flag != "" {
		return dir, err
	}
	return orOf(dir, err, System)
}

// orOf returns the user's own cache, or the node's if he has none. A job may run without a home directory, or with one
// that it may not read.
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

// Other returns the cache of this node if there is one and the user looks into another one, dir, though he did not name
// it. Else it returns "".
func Other(flag, dir string) string {
	if flag != "" || dir == System || os.Getenv("STATE_DIRECTORY") != "" {
		return ""
	}
	if names, err := os.ReadDir(System); err != nil || len(names) == 0 {
		return ""
	}
	return System
}

// Open opens a cache that exists. It makes none, because the commands that use it only look.
func Open(flag string) (*cache.Cache, error) {
	dir, err := readable(flag)
	if err != nil {
		return nil, err
	}
	names, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrPermission) {
		return nil, errkind.Errorf("cache-unreadable", "cache: %w", err)
	}
	if err != nil {
		return nil, errkind.Errorf("cache-missing", "cache: %w", err)
	}
	if len(names) == 0 {
		return nil, errkind.Errorf("cache-missing", "cache %s: the directory is empty", dir)
	}
	return cache.Open(dir)
}

// Create opens this server's own cache, and makes it if there is none.
func Create(flag string) (*cache.Cache, error) {
	dir, err := Dir(flag)
	if err != nil {
		return nil, err
	}
	return cache.Open(dir)
}

// Limits returns the limits in the policy file beside the keys. They hold for a server's own cache as for a node's.
func Limits(keys string) (cache.Limits, error) {
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
