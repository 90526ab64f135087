package cache

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/cache/durable"
	"github.com/dolly-img/dolly-img/ring/errkind"
)

// Cache is an open cache. Its methods may be called at the same time.
type Cache struct {
	dir     string // absolute
	fs      durable.FS
	indexMu chan struct{} // has room for one; beside the lock file, which others hold for a moment only
	limits  atomic.Pointer[Limits]
	access  Access
	idle    time.Duration // idleGrace
	log     *slog.Logger
}

// SetLog has the cache tell what it evicts, and what it finds to be rotten. It is called
// before anything else is done.
func (c *Cache) SetLog(l *slog.Logger) { c.log = l }

// SetLimits has every Transfer make room by evicting images where the limits would not be
// kept. It may be called at any time, and holds for transfers that ask for room after it;
// without it nothing is evicted but by GC.
func (c *Cache) SetLimits(l Limits) { c.limits.Store(&l) }

// limitsNow are those that SetLimits gave last, or none.
func (c *Cache) limitsNow() Limits {
	if l := c.limits.Load(); l != nil {
		return *l
	}
	return Limits{}
}

// Open opens the cache in dir, makes it where there is none (the directory
// missing or empty), and removes what processes that ended have left in it. A
// directory with other things in it is refused.
func Open(dir string) (*Cache, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("cache %s: %w", dir, err)
	}
	if err := makeDir(abs); err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	return open(durable.Dir(abs), abs)
}

// makeDir is a durable os.MkdirAll.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(dir)
	if err := makeDir(parent); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return durable.Dir(parent).SyncDir(".")
}

func open(fsys durable.FS, dir string) (*Cache, error) {
	c := &Cache{dir: dir, fs: fsys, indexMu: make(chan struct{}, 1), idle: idleGrace, log: slog.New(slog.DiscardHandler)}
	err := checkLayout(fsys)
	if errors.Is(err, fs.ErrNotExist) {
		err = c.create()
	}
	if err != nil {
		return nil, fmt.Errorf("cache %s: %w", dir, err)
	}
	err = mkdirs(fsys, "blobs", "blobs/sha256", "ingest", "kept", "parts", "leases", "verified", "placed", "layers", "used")
	if err == nil {
		err = errors.Join(sweep(fsys, "ingest"), sweep(fsys, "leases"), c.prune())
	}
	if err != nil && !readOnly(err) {
		return nil, fmt.Errorf("cache %s: %w", dir, err)
	}
	if _, err := c.readIndex(); err != nil {
		return nil, err
	}
	return c, nil
}

// readOnly says whether err only means that this user may not write here.
func readOnly(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS)
}

// create makes an empty cache. The marker comes last: a directory without it, in
// which nothing but our own beginnings lie, is begun again.
func (c *Cache) create() error {
	names, err := c.fs.Names(".")
	if err != nil {
		return err
	}
	begun := []string{"blobs", "ingest", "index.json", "lost+found"}
	for _, name := range names {
		if !slices.Contains(begun, name) {
			return errkind.Errorf("cache-not-one", "%s is in it, but no oci-layout: not a cache", name)
		}
	}
	if err := mkdirs(c.fs, "ingest", "blobs", "blobs/sha256"); err != nil {
		return err
	}
	if err := c.fs.SyncDir("blobs"); err != nil {
		return err
	}
	if !slices.Contains(names, "index.json") {
		if err := c.writeIndex(emptyIndex()); err != nil {
			return err
		}
	}
	return c.replace(v1.ImageLayoutFile, []byte(layout))
}

// Dir is the absolute path of the cache.
func (c *Cache) Dir() string { return c.dir }

// Kinds of what a reference names.
const (
	KindSIF   = "sif"
	KindImage = "image"
	KindIndex = "index"
)

// Entry is one line of List.
type Entry struct {
	Ref      string        // "" where another tool put a manifest without a name
	Digest   digest.Digest // of the manifest or index
	Kind     string        // KindSIF, KindImage or KindIndex
	Size     int64         // bytes of all its blobs, each counted once
	Unique   int64         // bytes of those that no other entry needs
	Pinned   bool          // is not evicted
	LastUsed time.Time     // received, or asked for with Path
	Err      error         // why the rest could not be read
}

// List is what the cache holds, in the order of index.json.
func (c *Cache) List() ([]Entry, error) {
	index, err := c.readIndex()
	if err != nil {
		return nil, err
	}
	var list []Entry
	blobs := make([][]v1.Descriptor, len(index.Manifests))
	users := map[digest.Digest]int{}
	for i, d := range index.Manifests {
		e := Entry{Ref: refName(d), Digest: d.Digest, LastUsed: c.lastUsed(d.Digest), Pinned: pinned(d)}
		if e.Kind, e.Err = c.kind(d); e.Err == nil {
			var lacks error
			e.Err = c.walk(d, func(b v1.Descriptor) error {
				if err := c.present(b); err != nil && lacks == nil {
					lacks = err
				}
				e.Size += b.Size
				users[b.Digest]++
				blobs[i] = append(blobs[i], b)
				return nil
			})
			e.Err = cmp.Or(e.Err, lacks)
		}
		list = append(list, e)
	}
	for i := range list {
		for _, b := range blobs[i] {
			if users[b.Digest] == 1 {
				list[i].Unique += b.Size
			}
		}
	}
	return list, nil
}

// touch notes that the image was used now. Who may not write has the daemon do it.
func (c *Cache) touch(d digest.Digest) {
	if err := c.stampUse(d); err != nil && readOnly(err) {
		c.tellUse(d)
	}
}

func (c *Cache) stampUse(d digest.Digest) error {
	name := "used/" + flat(d)
	f, err := c.fs.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	f.Close()
	return c.fs.Chtimes(name, time.Now(), time.Now())
}

func (c *Cache) lastUsed(d digest.Digest) time.Time {
	name, err := blobName(d)
	if err != nil {
		return time.Time{}
	}
	for _, name := range []string{"used/" + flat(d), name} {
		if info, err := c.fs.Lstat(name); err == nil {
			return info.ModTime()
		}
	}
	return time.Time{}
}

// Path is how to hand the image to a runtime: the file of a SIF, which must not
// be written to, else oci:DIR:REF.
func (c *Cache) Path(ref string) (string, error) {
	d, err := c.Resolve(ref)
	if err != nil {
		return "", err
	}
	m, err := c.manifest(d)
	if err == nil {
		err = c.walk(d, c.present)
	}
	if err != nil {
		return "", errkind.Errorf("cache-incomplete", "%w", err)
	}
	c.touch(d.Digest)
	if sif, ok := m.sif(); ok {
		return c.BlobPath(sif.Digest)
	}
	return "oci:" + c.dir + ":" + ref, nil
}

// BlobPath is the file of a blob, there or not; the error is about the digest.
func (c *Cache) BlobPath(d digest.Digest) (string, error) {
	name, err := blobName(d)
	if err != nil {
		return "", err
	}
	return filepath.Join(c.dir, name), nil
}
