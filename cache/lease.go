package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/dolly-img/dolly-img/cache/durable"
)

// maxLease bounds a lease file in bytes: 100,000 digests have 7 MB.
const maxLease = 64 << 20

// lease keeps the blobs of a running transfer, or of an image that is being served, from being removed. Whoever removes
// blobs, in this process or another one, calls leased first.
type lease struct {
	f    durable.File
	name string
	n    int64 // bytes of f
}

func newLease(fsys durable.FS, dir string) (*lease, error) {
	f, name, err := durable.CreateLocked(fsys, dir, lockMode)
	if err != nil {
		return nil, err
	}
	return &lease{f: f, name: name}, nil
}

// add adds blobs to the lease.
func (l *lease) add(digests ...digest.Digest) error {
	var b strings.Builder
	for _, d := range digests {
		b.WriteString(d.String() + "\n")
	}
	n, err := l.f.WriteAt([]byte(b.String()), l.n)
	l.n += int64(n)
	return err
}

// stands reports whether the lease is in the cache still.
func (l *lease) stands(fsys durable.FS) bool {
	is, _ := durable.IsAt(fsys, l.f, l.name)
	return is
}

func (l *lease) close(fsys durable.FS) {
	_ = fsys.Remove(l.name) // if this fails, the lease still ends with its lock
	_ = l.f.Close()
}

// leased returns the blobs that running transfers and readers need, in this process and in
// others. If a lease cannot be read, that is an error, and no blob may be removed.
func (c *Cache) leased() (map[digest.Digest]bool, error) { return c.leasedIn("leases", "holds") }

// leasedIn is leased for some directories of leases.
func (c *Cache) leasedIn(dirs ...string) (map[digest.Digest]bool, error) {
	set := map[digest.Digest]bool{}
	for _, dir := range dirs {
		names, err := c.fs.Names(dir)
		if errors.Is(err, fs.ErrNotExist) && dir == "holds" {
			continue // an earlier version made the cache
		}
		if err != nil {
			return nil, fmt.Errorf("cache %s: %s: %w", c.dir, dir, err)
		}
		for _, name := range names {
			if err := c.readLease(dir+"/"+name, set); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("cache %s: lease %s: %w", c.dir, name, err)
			}
		}
	}
	return set, nil
}

// leaseExposed is how long a lease counts that others can open. Its maker, a process of an earlier version, may live. But
// everybody can hold its lock, also after it was closed to others, and so keep the blobs here.
const leaseExposed = time.Hour

// overdue reports whether a lease no longer counts, whoever holds its lock.
func overdue(f durable.File) bool {
	info, err := f.Stat()
	return err == nil && exposed(info) && time.Since(info.ModTime()) > leaseExposed
}

// makerLives reports whether the maker of a lease lives. If it does not, the lease is locked until f is closed.
func makerLives(f durable.File) (bool, error) {
	err := durable.TryLock(f)
	if errors.Is(err, durable.ErrLocked) {
		return !overdue(f), nil
	}
	return false, err
}

// removeLease removes a lease whose maker is gone.
func removeLease(fsys durable.FS, name string) error {
	f, err := fsys.OpenFile(name, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	gone := overdue(f)
	f.Close() // RemoveOrphan locks it anew
	if !gone {
		return durable.RemoveOrphan(fsys, name)
	}
	if err := fsys.Remove(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (c *Cache) readLease(name string, set map[digest.Digest]bool) error {
	f, err := c.fs.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if lives, err := makerLives(f); !lives {
		return err
	}
	b, err := readFile(c.fs, name, maxLease)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		if !strings.HasSuffix(line, "\n") {
			break // this line is being written
		}
		d := digest.Digest(strings.TrimSuffix(line, "\n"))
		if err := validate(d); err != nil {
			return err
		}
		set[d] = true
	}
	return nil
}
