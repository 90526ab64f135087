package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

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

func newLease(fsys durable.FS) (*lease, error) {
	f, name, err := durable.CreateLocked(fsys, "leases", lockMode)
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

func (l *lease) close(fsys durable.FS) {
	_ = fsys.Remove(l.name) // if this fails, the lease still ends with its lock
	_ = l.f.Close()
}

// leased returns the blobs that running transfers and readers need, in this process and in
// others. If a lease cannot be read, that is an error, and no blob may be removed.
func (c *Cache) leased() (map[digest.Digest]bool, error) {
	set := map[digest.Digest]bool{}
	names, err := c.fs.Names("leases")
	if err != nil {
		return nil, fmt.Errorf("cache %s: leases: %w", c.dir, err)
	}
	for _, name := range names {
		if err := c.readLease("leases/"+name, set); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("cache %s: lease %s: %w", c.dir, name, err)
		}
	}
	return set, nil
}

func (c *Cache) readLease(name string, set map[digest.Digest]bool) error {
	f, err := c.fs.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := durable.TryLock(f); err == nil {
		return nil // its maker is gone
	} else if !errors.Is(err, durable.ErrLocked) {
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
