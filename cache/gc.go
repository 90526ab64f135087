package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/ring/bytesize"
	"github.com/dolly-img/dolly-img/ring/errkind"
)

// Limits are what GC keeps the cache within; zero values are none.
type Limits struct {
	Max  int64 // bytes of all blobs
	Free int64 // bytes that stay free in its file system
}

// GCOptions say what GC may remove.
type GCOptions struct {
	Limits Limits
	// Room is how many bytes are about to be added, for which there shall be room.
	Room int64
	// Grace keeps blobs that no image needs for so long after they came: another tool may be about to
	// name them, or a push that was cut off is repeated. Where a limit is not kept, those that this
	// package has put here go at once. What a transfer needs is kept in any case.
	Grace time.Duration
	// Attainable evicts nothing, and is an error, where not so much could be free in the file system
	// whatever goes.
	Attainable bool
	// Keep are references that stay, as if they were pinned.
	Keep []string
}

// DefaultGrace is a good GCOptions.Grace.
const DefaultGrace = time.Hour

// idleGrace is the same where there is no limit to keep: nothing is in need of the room, and what
// another tool brings may take long.
const idleGrace = 24 * time.Hour

// Tend removes what no image needs any more, such as the layers of what a name has named before,
// and where limits are set the images that were not used for longest until they are kept, but none
// that has a name in keep.
func (c *Cache) Tend(ctx context.Context, keep ...string) error {
	o := GCOptions{Limits: c.limitsNow(), Grace: DefaultGrace, Keep: keep}
	if o.Limits == (Limits{}) {
		o.Grace = c.idle
	}
	_, err := c.GC(ctx, o)
	return err
}

// GCResult is what GC removed.
type GCResult struct {
	Images []string // references, and digests of images without one
	Blobs  int
	Bytes  int64
	Over   bool  // the limits are not kept: the rest is pinned or in use
	Waits  int64 // bytes that no image needs, and that came too lately to go
}

// GC removes blobs that no image needs, and while the limits are not kept the images that
// were not used for longest. Images that are pinned stay, and so does every blob that a
// running transfer needs. Limits that cannot be kept are no error.
func (c *Cache) GC(ctx context.Context, o GCOptions) (GCResult, error) {
	unlock, err := c.lockIndex(ctx)
	if err != nil {
		return GCResult{}, err
	}
	defer unlock()
	g, err := c.newCollector(o)
	if err == nil {
		err = c.settleIndex() // or a power loss brings back names of what is removed now
	}
	if err == nil {
		err = g.collect(ctx)
	}
	if err != nil {
		return g.res, fmt.Errorf("cache %s: gc: %w", c.dir, err)
	}
	return g.res, nil
}

// Remove takes the reference out, or all of an image that is named by its digest, and with it
// the blobs that nothing else needs. The error about one that is not there wraps ErrNotFound.
func (c *Cache) Remove(ctx context.Context, ref string) (GCResult, error) {
	unlock, err := c.lockIndex(ctx)
	if err != nil {
		return GCResult{}, err
	}
	defer unlock()
	g, err := c.newCollector(GCOptions{Grace: DefaultGrace})
	if err != nil {
		return GCResult{}, fmt.Errorf("cache %s: remove: %w", c.dir, err)
	}
	for {
		i := slices.IndexFunc(g.index.Manifests, func(d v1.Descriptor) bool {
			return ref != "" && (refName(d) == ref || d.Digest.String() == ref)
		})
		if i < 0 {
			break
		}
		if err := g.evict(i); err != nil {
			return g.res, fmt.Errorf("cache %s: remove: %w", c.dir, err)
		}
	}
	if len(g.res.Images) == 0 {
		if err := c.settleIndex(); err != nil { // it was removed, but not durably
			return GCResult{}, err
		}
		return GCResult{}, errkind.Errorf("cache-unknown", "cache %s: %q: %w", c.dir, ref, ErrNotFound)
	}
	return g.res, nil
}

// collector is one run of GC. The index is locked, so that nothing is named meanwhile and
// no transfer takes a lease it did not see.
type collector struct {
	c      *Cache
	o      GCOptions
	now    time.Time
	leased map[digest.Digest]bool
	index  v1.Index
	blobs  map[digest.Digest][]digest.Digest // of each image, by its root
	needs  map[digest.Digest]int             // how many images need a blob
	unread error                             // an image cannot be read: what it needs is not known
	sizes  map[digest.Digest]int64
	total  int64
	res    GCResult
}

// newCollector looks what there is.
func (c *Cache) newCollector(o GCOptions) (g *collector, err error) {
	g = &collector{c: c, o: o, now: time.Now(), blobs: map[digest.Digest][]digest.Digest{}, needs: map[digest.Digest]int{}, sizes: map[digest.Digest]int64{}}
	if g.leased, err = g.c.leased(); err != nil {
		return g, err
	}
	if g.index, err = g.c.readIndex(); err != nil {
		return g, err
	}
	for _, d := range g.index.Manifests {
		if _, ok := g.blobs[d.Digest]; !ok {
			g.blobs[d.Digest] = g.needed(d)
		}
		for _, b := range g.blobs[d.Digest] {
			g.needs[b]++
		}
	}
	algorithms, err := g.c.fs.Names("blobs")
	if err != nil {
		return g, err
	}
	for _, a := range algorithms {
		names, err := g.c.fs.Names("blobs/" + a)
		if err != nil {
			return g, err
		}
		for _, name := range names {
			d := digest.NewDigestFromEncoded(digest.Algorithm(a), name)
			info, err := g.c.fs.Lstat("blobs/" + a + "/" + name)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return g, err // not counted it would look as if there were room
			}
			if err != nil || validate(d) != nil || !info.Mode().IsRegular() {
				continue // nothing of ours
			}
			g.sizes[d] = info.Size()
			g.total += info.Size()
		}
	}
	return g, nil
}

// needed are the blobs of an image.
func (g *collector) needed(root v1.Descriptor) (blobs []digest.Digest) {
	list, err := g.c.reach(root)
	if err != nil {
		g.unread = errkind.Errorf("cache-unread", "image %s: %w", refName(root), err)
	}
	for _, d := range list {
		blobs = append(blobs, d.Digest)
	}
	return blobs
}

func (g *collector) collect(ctx context.Context) error {
	if err := g.c.emptyQuarantine(g.now); err != nil {
		return err
	}
	over, err := g.over()
	switch {
	case err != nil:
		return err
	case g.unread != nil && (over || g.o.Room == 0):
		return g.unread
	case g.unread != nil:
		return nil
	}
	victims := g.victims()
	// What cannot be had by evicting all that may go is not worth one of them.
	if over && g.o.Room > 0 {
		if err := g.fits(victims); err != nil {
			return err
		}
	} else if over && g.o.Attainable {
		if room, known, err := g.room(victims, Limits{Free: g.o.Limits.Free}); err != nil {
			return err
		} else if known && room < 0 {
			return errkind.Errorf("cache-unattainable", "nothing is removed: so much cannot be free here, it lacks %s that the cache cannot give", bytesize.Text(-room))
		}
	}
	if err := g.dropUnneeded(ctx, func(d digest.Digest) bool { return !g.fresh(d) }); err != nil {
		return err
	}
	if over, err = g.over(); err != nil {
		return err
	}
	if over {
		if err := g.dropUnneeded(ctx, g.ours); err != nil {
			return err
		}
	}
	for _, victim := range victims {
		if err := ctx.Err(); err != nil {
			return err
		}
		if over, err = g.over(); err != nil || !over {
			return err
		}
		i := slices.IndexFunc(g.index.Manifests, func(d v1.Descriptor) bool { return d.Digest == victim.Digest && refName(d) == refName(victim) })
		if err := g.evict(i); err != nil {
			return err
		}
	}
	g.res.Over, err = g.over()
	return err
}

// dropUnneeded drops those of the blobs that no image needs which may go.
func (g *collector) dropUnneeded(ctx context.Context, may func(digest.Digest) bool) error {
	waits := int64(0)
	for d := range g.sizes {
		if err := ctx.Err(); err != nil {
			return err
		}
		if g.needs[d] == 0 && may(d) {
			if err := g.drop(d); err != nil {
				return err
			}
		}
	}
	for d, size := range g.sizes {
		if g.needs[d] == 0 && !g.leased[d] {
			waits += size
		}
	}
	g.res.Waits = waits
	return nil
}

// evict takes image i out of the index, then the blobs that only it needed. So a crash
// in between leaves blobs without an image, never an image without its blobs.
func (g *collector) evict(i int) error {
	d := g.index.Manifests[i]
	index := g.index
	index.Manifests = slices.Delete(slices.Clone(index.Manifests), i, i+1)
	if err := g.c.writeIndex(index); err != nil {
		return err
	}
	g.index = index
	name := refName(d)
	if name == "" {
		name = d.Digest.String()
	}
	g.res.Images = append(g.res.Images, name)
	g.c.log.Info("image removed from the cache", "reference", name, "digest", d.Digest)
	if !slices.ContainsFunc(index.Manifests, func(other v1.Descriptor) bool { return other.Digest == d.Digest }) {
		_ = g.c.fs.Remove("used/" + flat(d.Digest))
	}
	for _, b := range g.blobs[d.Digest] {
		if g.needs[b]--; g.needs[b] > 0 || g.unread != nil {
			continue
		}
		if err := g.drop(b); err != nil {
			return err
		}
	}
	return nil
}

// drop removes a blob, unless a transfer needs it.
func (g *collector) drop(d digest.Digest) error {
	size, ok := g.sizes[d]
	if !ok || g.leased[d] {
		return nil
	}
	name, err := blobName(d)
	if err != nil {
		return err
	}
	g.c.distrust(d)
	if err := g.c.fs.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	delete(g.sizes, d)
	g.total -= size
	g.res.Blobs++
	g.res.Bytes += size
	return nil
}

// fresh says whether the blob came lately. The change time counts as well: a rename
// sets it, and another tool may have kept the time of writing.
func (g *collector) fresh(d digest.Digest) bool {
	name, err := blobName(d)
	if err != nil {
		return true
	}
	info, err := g.c.fs.Lstat(name)
	if err != nil {
		return true
	}
	st := stat(info)
	came := time.Unix(0, max(st.Mtim.Nano(), st.Ctim.Nano()))
	return g.now.Sub(came) < g.o.Grace
}

// ours says whether this package has put the blob here: others do not make theirs read-only.
func (g *collector) ours(d digest.Digest) bool {
	name, err := blobName(d)
	if err != nil {
		return false
	}
	info, err := g.c.fs.Lstat(name)
	return err == nil && info.Mode().Perm() == blobMode
}

// Unneeded is how many bytes of blobs no image needs.
func (c *Cache) Unneeded() (bytes int64, err error) {
	g, err := c.newCollector(GCOptions{})
	if err != nil {
		return 0, err
	}
	for d, size := range g.sizes {
		if g.needs[d] == 0 {
			bytes += size
		}
	}
	return bytes, g.unread
}
