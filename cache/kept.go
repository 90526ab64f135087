package cache

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/cache/durable"
)

// A transfer that is cut off leaves the first bytes of blobs in kept/, and part files outside of the cache, whose paths
// are in the journal parts/. Nothing of this is trusted: before the bytes count, the ring compares them with the
// server's marks. Both their age and their size are bounded.

const (
	// keptFor is how long kept parts stay.
	keptFor = 7 * 24 * time.Hour
	// keptShare bounds the size of kept parts: together they take at most one keptShare-th of the space that would be
	// free without them.
	keptShare = 2
)

// keptParts returns the blobs of which the first bytes are kept.
func (c *Cache) keptParts() map[digest.Digest]bool {
	names, err := c.fs.Names("kept")
	if err != nil || len(names) == 0 {
		return nil
	}
	set := map[digest.Digest]bool{}
	for _, name := range names {
		set[unflat(name)] = true
	}
	return set
}

// keptOf returns how many first bytes of a blob are kept, as Offer would claim them.
func (c *Cache) keptOf(d v1.Descriptor) int64 {
	if validate(d.Digest) != nil {
		return 0
	}
	info, err := c.fs.Lstat("kept/" + flat(d.Digest))
	if err != nil {
		return 0
	}
	return claimable(info.Size(), d)
}

// claimable returns how many of the first bytes of a blob count. Holding all of it would say that the blob is right, which nobody knows.
func claimable(bytes int64, d v1.Descriptor) int64 { return max(0, min(bytes, d.Size-1)) }

// unflat returns the digest in a name that flat made, or "" if the name is none.
func unflat(name string) digest.Digest {
	d := digest.Digest(strings.Replace(name, "-", ":", 1))
	if d.Validate() != nil {
		return ""
	}
	return d
}

// claim gives the kept part of blob d to this transfer, and returns its length. It returns 0 if there is none, or if
// another transfer has claimed it.
func (t *Transfer) claim(d v1.Descriptor) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.parts {
		if p.d.Digest == d.Digest {
			return p.Written() // the blob was offered twice
		}
	}
	if t.lease == nil {
		return 0
	}
	name := t.partName(d)
	if t.c.fs.Rename("kept/"+flat(d.Digest), name) != nil {
		return 0
	}
	f, err := t.c.fs.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		_ = t.c.fs.Remove(name)
		return 0
	}
	info, err := f.Stat()
	// Truncate gives back the space that was reserved behind the bytes.
	if err != nil || f.Truncate(info.Size()) != nil {
		f.Close()
		_ = t.c.fs.Remove(name)
		return 0
	}
	p := newPart(f, info.Size(), d, name)
	t.parts = append(t.parts, p)
	return info.Size()
}

// keep moves an open part of blob d to kept/. It removes the part if it is empty, or if the digest is not known.
func (c *Cache) keep(f durable.File, name string, d digest.Digest, size int64) error {
	if d == "" || size <= 0 {
		return c.fs.Remove(name)
	}
	if err := f.Chmod(0o600); err != nil { // parts are read-only like blobs, and the next transfer writes to this one
		return err
	}
	return c.fs.Rename(name, "kept/"+flat(d))
}

// leave calls keep for a part in ingest whose maker is gone.
func leave(fsys durable.FS, name string) error {
	_, blob, _ := strings.Cut(path.Base(name), ".")
	d := unflat(blob)
	if d == "" {
		return fsys.Remove(name)
	}
	f, err := fsys.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return (&Cache{fs: fsys}).keep(f, name, d, info.Size())
}

// prune removes kept parts that are too old, and then the oldest ones while all together are too large.
func (c *Cache) prune() error {
	names, err := c.fs.Names("kept")
	if err != nil || len(names) == 0 {
		return err
	}
	type left struct {
		name string
		info fs.FileInfo
	}
	var all []left
	total := int64(0)
	for _, name := range names {
		if info, err := c.fs.Lstat("kept/" + name); err == nil {
			all = append(all, left{"kept/" + name, info})
			total += info.Size()
		}
	}
	slices.SortFunc(all, func(a, b left) int { return a.info.ModTime().Compare(b.info.ModTime()) })
	limit := int64(-1)
	if d, err := c.fs.OpenFile("kept", os.O_RDONLY, 0); err == nil {
		if free, _, err := durable.Space(d); err == nil && free >= 0 {
			limit = (free + total) / keptShare
		}
		d.Close()
	}
	for _, l := range all {
		if time.Since(l.info.ModTime()) <= keptFor && (limit < 0 || total <= limit) && unflat(path.Base(l.name)) != "" {
			continue
		}
		if err := c.fs.Remove(l.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		total -= l.info.Size()
	}
	return nil
}

// RecordPart notes in the journal that a transfer may leave a part file at path.
func (c *Cache) RecordPart(path string) error {
	f, err := c.fs.OpenFile(partRecord(path), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err == nil {
		_, err = f.WriteAt([]byte(path+"\n"), 0)
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}
	if err != nil {
		return fmt.Errorf("cache %s: journal of parts: %w", c.dir, err)
	}
	return nil
}

// ForgetPart removes a path from the journal.
func (c *Cache) ForgetPart(path string) { _ = c.fs.Remove(partRecord(path)) }

func partRecord(path string) string {
	sum := sha256.Sum256([]byte(path))
	return "parts/" + hex.EncodeToString(sum[:])
}

// Parts returns the journal, which is the paths of part files that transfers may have left. The caller removes files
// that are older than keep.
func (c *Cache) Parts() (paths []string, keep time.Duration, err error) {
	names, err := c.fs.Names("parts")
	if err != nil {
		return nil, 0, fmt.Errorf("cache %s: journal of parts: %w", c.dir, err)
	}
	for _, name := range names {
		b, err := readFile(c.fs, "parts/"+name, maxRecord)
		p := strings.TrimSuffix(string(b), "\n")
		if err != nil || !filepath.IsAbs(p) || partRecord(p) != "parts/"+name {
			_ = c.fs.Remove("parts/" + name) // the record is torn
			continue
		}
		paths = append(paths, p)
	}
	return paths, keptFor, nil
}
