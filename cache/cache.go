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
	dir string // absolute
	fs  durable.FS
	// indexMu has room for one. It serializes the goroutines of this process, and the lock file serializes processes.
	indexMu chan struct{}
	limits  atomic.Pointer[Limits]
	access  Access
	idle    time.Duration // idleGrace, or less in tests
	log     *slog.Logger
	known   known
	home    *home // nil in tests of a file system that is not there
}

// SetLog lets the cache log what it evicts, and which blobs it finds wrong. It has to be called
// before anything else is done.
func (c *Cache) SetLog(l *slog.Logger) { c.log = l }

// SetLimits lets every Transfer evict images if the limits would not be kept otherwise. It
// may be called at any time, and holds for transfers that ask for room after it. Without it
// only GC evicts.
func (c *Cache) SetLimits(l Limits) { c.limits.Store(&l) }

// limitsNow returns the limits that SetLimits set last, or none.
func (c *Cache) limitsNow() Limits {
	if l := c.limits.Load(); l != nil {
		return *l
	}
	return Limits{}
}

// Open opens the cache in dir, and makes one if dir is missing or empty. It removes what
// processes that ended have left in the cache. It refuses a directory with other things in it.
func Open(dir string) (*Cache, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("cache %s: %w", dir, err)
	}
	if err := makeDir(abs); err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	c, err := open(durable.Dir(abs), abs)
	if err != nil {
		return nil, err
	}
	if c.home, err = newHome(abs); err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	return c, nil
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
	err = mkdirs(fsys, skeleton[2:]...)
	if err == nil {
		err = errors.Join(sweep(fsys, "ingest"), sweep(fsys, "leases"), sweep(fsys, "holds"), c.prune())
	}
	if err != nil && !readOnly(err) {
		return nil, fmt.Errorf("cache %s: %w", dir, err)
	}
	if _, err := c.readIndex(); err != nil {
		return nil, err
	}
	return c, nil
}

// readOnly reports whether err only means that this user may not write here.
func readOnly(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS)
}

// create makes an empty cache. The marker oci-layout comes last, so a directory without it was not finished: if it has
// nothing in it but what create makes, create begins again.
func (c *Cache) create() error {
	names, err := c.fs.Names(".")
	if err != nil {
		return err
	}
	// A lock is what a program leaves that was at work when somebody emptied the directory.
	begun := []string{"blobs", "ingest", "index.json", "lost+found", "lock"}
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

// Dir returns the absolute path of the cache.
func (c *Cache) Dir() string { return c.dir }

// Kinds of images.
const (
	KindSIF   = "sif"
	KindImage = "image"
	KindIndex = "index"
)

// Entry is one line of List.
type Entry struct {
	Ref      string        // "" if another tool put the manifest there without a name, or if no name leads to it any more
	Digest   digest.Digest // of the manifest or index
	Kind     string        // KindSIF, KindImage or KindIndex
	Size     int64         // bytes of all its blobs, each counted once
	Unique   int64         // bytes of the blobs that no other entry needs
	Pinned   bool          // whether a pin of this node keeps it from being evicted
	Wanted   []string      // the owners beside this node that keep it from being evicted
	LastUsed time.Time     // when it was received, or when Path was asked for it
	Err      error         // why the rest could not be read
}

// List returns what the cache holds: what index.json names, in its order, and then what is wanted, is here and has no
// name any more.
func (c *Cache) List() ([]Entry, error) {
	index, err := c.readIndex()
	if err != nil {
		return nil, err
	}
	wishes, err := c.readWishes()
	if err != nil {
		return nil, err
	}
	keepers := wishes.keepers()
	images := slices.Concat(index.Manifests, c.nameless(index, keepers))
	var list []Entry
	blobs := make([][]v1.Descriptor, len(images))
	users := map[digest.Digest]int{}
	for i, d := range images {
		e := Entry{Ref: refName(d), Digest: d.Digest, LastUsed: c.lastUsed(d.Digest), Pinned: pinned(d), Wanted: keepers.of(d)}
		if e.Pinned {
			e.Wanted = e.Wanted[1:]
		}
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

// touch notes that the image was used now. If this user may not write, it asks the daemon to do it.
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
	defer f.Close()
	return f.Chtimes(time.Now(), time.Now())
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

// Path returns what a runtime needs to start the image: the file of a SIF, which must not
// be written to, or else oci:DIR:REF.
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

// BlobPath returns the file of a blob, which need not exist. It returns an error if d is no digest.
func (c *Cache) BlobPath(d digest.Digest) (string, error) {
	name, err := blobName(d)
	if err != nil {
		return "", err
	}
	return filepath.Join(c.dir, name), nil
}
