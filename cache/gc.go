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

// Limits bound the size of a cache. A limit of 0 is none.
type Limits struct {
	Max  int64 // most bytes of all blobs
	Free int64 // least bytes that stay free in the file system
}

// GCOptions says what GC may remove.
type GCOptions struct {
	Limits Limits
	// Room is how many bytes are about to be added. GC makes room for them.
	Room int64
	// Grace is how long blobs that no image needs are kept after they came: another tool may be about to name them, or a
	// push that was cut off may be repeated. If a limit is not kept, blobs that this package has put here go at
	// once. Blobs that a transfer needs are kept in any case.
	Grace time.Duration
	// Attainable makes GC evict nothing and return an error if Limits.Free could not be kept whatever goes.
	Attainable bool
	// Keep has references that stay, as if they were pinned.
	Keep []string
}

// DefaultGrace is a good GCOptions.Grace.
const DefaultGrace = time.Hour

// idleGrace is the grace of a cache without limits: nobody needs the room, and another tool may take long to name its
// blobs.
const idleGrace = 24 * time.Hour

// Tend removes what no image needs any more, such as the layers of an image whose name has moved. If limits are set, it
// then removes the images that were not used for longest until the limits are kept, but none with a name
// in keep.
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
	Pinned []string // those of Images that were pinned, which only Remove removes
	Blobs  int
	Bytes  int64
	// Over says that the limits are not kept, because the rest is pinned or in use.
	Over bool
	// Wanted has those of Images whose blobs stay, because others than this node want them, and who these are.
	Wanted map[string][]string
	// Pins says which images that are pinned or wanted keep the limits from being kept, or is "".
	Pins string
	// Waits is how many bytes no image needs that stay because of the grace time.
	Waits int64
}

// GC removes blobs that no image needs, and then, while the limits are not kept, the images that
// were not used for longest. Images that are pinned or wanted stay, and so does every blob that a
// running transfer needs. Limits that cannot be kept are no error.
func (c *Cache) GC(ctx context.Context, o GCOptions) (GCResult, error) {
	unlock, err := c.lockIndex(ctx)
	if err != nil {
		return GCResult{}, err
	}
	defer unlock()
	g, err := c.collectorFor(o)
	if err == nil {
		err = c.settleIndex() // else a power loss could bring back the name of an image that is removed now
	}
	if err == nil {
		err = g.collect(ctx)
	}
	if err != nil {
		return g.res, fmt.Errorf("cache %s: gc: %w", c.dir, err)
	}
	return g.res, nil
}

// Remove removes a reference, or all references to an image if ref is its digest, and the blobs that nothing else
// needs. The error about a reference that is not there wraps ErrNotFound.
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
		if err := c.settleIndex(); err != nil { // an earlier removal may not be durable yet
			return GCResult{}, err
		}
		return GCResult{}, errkind.Errorf("cache-unknown", "cache %s: %q: %w", c.dir, ref, ErrNotFound)
	}
	return g.res, nil
}

// collector is one run of GC. The index is locked, so that no image gets a name meanwhile, and
// no transfer takes a lease that the collector did not see.
type collector struct {
	c      *Cache
	o      GCOptions
	now    time.Time
	leased map[digest.Digest]bool
	index  v1.Index
	// keepers says who wants what. What they want counts as an image, whether or not the index names it.
	keepers keepers
	// blobs has the blobs of each image, by the digest of its root.
	blobs map[digest.Digest][]digest.Digest
	// needs counts the images that need a blob.
	needs map[digest.Digest]int
	// unread is why an image could not be read. Nobody knows which blobs it needs.
	unread error
	// sizes has the blobs that are there, and total is the sum of their sizes.
	sizes map[digest.Digest]int64
	total int64
	res   GCResult
}

// newCollector finds out what is in the cache and who needs it.
func (c *Cache) newCollector(o GCOptions) (g *collector, err error) {
	return c.newCollectorBy(context.Background(), o, c.reach)
}

// newCollectorBy is newCollector with another way to find the blobs of an image, and ends with a context.
func (c *Cache) newCollectorBy(ctx context.Context, o GCOptions, reach func(root v1.Descriptor) ([]v1.Descriptor, error)) (g *collector, err error) {
	g = &collector{c: c, o: o, now: time.Now(), blobs: map[digest.Digest][]digest.Digest{}, needs: map[digest.Digest]int{}}
	if g.leased, err = g.c.leased(); err != nil {
		return g, err
	}
	if g.index, err = g.c.readIndex(); err != nil {
		return g, err
	}
	wishes, err := g.c.readWishes()
	if err != nil {
		return g, err
	}
	g.keepers = wishes.keepers()
	for _, d := range slices.Concat(g.index.Manifests, g.keepers.roots) {
		if _, ok := g.blobs[d.Digest]; !ok {
			g.blobs[d.Digest] = g.needed(d, reach)
		}
		for _, b := range g.blobs[d.Digest] {
			g.needs[b]++
		}
	}
	g.sizes, g.total, err = c.blobSizes(ctx)
	return g, err
}

// needed returns the blobs of an image.
func (g *collector) needed(root v1.Descriptor, reach func(v1.Descriptor) ([]v1.Descriptor, error)) (blobs []digest.Digest) {
	list, err := reach(root)
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
	// If evicting all images that may go is not enough, none of them is evicted.
	if over && g.o.Room > 0 {
		if err := g.fits(victims); err != nil {
			return err
		}
	} else if over && g.o.Attainable {
		if room, known, err := g.room(victims, Limits{Free: g.o.Limits.Free}); err != nil {
			return err
		} else if known && room < 0 {
			text := fmt.Sprintf("nothing is removed: so much cannot be free here, it lacks %s that the cache cannot give", bytesize.Text(-room))
			pins := g.pins()
			if len(pins.names) > 0 {
				text += "; " + pins.String()
			}
			if room+pins.bytes >= 0 {
				return pins.inTheWay(errors.New(text))
			}
			return errkind.Errorf("cache-unattainable", "%s", text)
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
	if g.res.Over, err = g.over(); g.res.Over {
		if pins := g.pins(); len(pins.names) > 0 {
			g.res.Pins = pins.String()
		}
	}
	return err
}

// dropUnneeded drops the blobs that no image needs, if may allows it.
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

// evict removes image i from the index, and then the blobs that only it needed. A crash
// between the two leaves blobs without an image, but never an image without its blobs.
func (g *collector) evict(i int) error {
	d := g.index.Manifests[i]
	index := g.index
	index.Manifests = slices.Delete(slices.Clone(index.Manifests), i, i+1)
	if err := g.c.writeIndex(index); err != nil {
		return err
	}
	g.index = index
	name := imageName(d)
	g.res.Images = append(g.res.Images, name)
	if pinned(d) {
		g.res.Pinned = append(g.res.Pinned, name)
	}
	if owners := g.keepers.digests[d.Digest]; len(owners) > 0 {
		if g.res.Wanted == nil {
			g.res.Wanted = map[string][]string{}
		}
		g.res.Wanted[name] = owners
	}
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

// fresh reports whether the blob came within the grace time. The change time counts, too, because a rename
// sets it, while another tool may have kept the modification time.
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

// ours reports whether this package has put the blob here. Other tools do not make their blobs read-only.
func (g *collector) ours(d digest.Digest) bool {
	name, err := blobName(d)
	if err != nil {
		return false
	}
	info, err := g.c.fs.Lstat(name)
	return err == nil && info.Mode().Perm() == blobMode
}
