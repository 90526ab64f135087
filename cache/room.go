package cache

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/cache/durable"
	"github.com/dolly-img/dolly-img/ring/bytesize"
	"github.com/dolly-img/dolly-img/ring/errkind"
)

// This file decides how much room the limits leave, and which images may be evicted for it.

// lacking returns how many bytes of the blobs are not held, as far as their sizes are known.
func lacking(blobs []v1.Descriptor, held []int64) (need int64) {
	for i, d := range blobs {
		need += min(max(0, d.Size-held[i]), math.MaxInt64-need)
	}
	return need
}

// room returns how many bytes are free for the blobs that are not held. With limits it returns how many could be free.
// It evicts nothing yet; Begin does that.
func (t *Transfer) room(ctx context.Context, blobs []v1.Descriptor, held []int64) (int64, error) {
	if t.c.limitsNow() == (Limits{}) {
		return t.c.free()
	}
	need := lacking(blobs, held)
	t.mu.Lock()
	t.need = need
	t.mu.Unlock()
	unlock, err := t.c.lockIndex(ctx)
	if err != nil {
		return -1, err
	}
	defer unlock()
	g, err := t.c.collectorFor(t.gc(need))
	if err != nil {
		return -1, err
	}
	victims := g.victims()
	if need > 0 {
		if err := g.fits(victims); err != nil {
			return -1, err
		}
	}
	room, known, err := g.room(victims, g.o.Limits)
	if !known || err != nil {
		return -1, err
	}
	return max(0, room), nil
}

// collectorFor is newCollector for a transfer. If there is no room for it, it ends the holds of images that nobody pulls.
func (c *Cache) collectorFor(o GCOptions) (*collector, error) {
	g, err := c.newCollector(o)
	if err != nil || o.Room <= 0 || g.fits(g.victims()) == nil || !c.endHolds() {
		return g, err
	}
	return c.newCollector(o)
}

// over reports whether a limit is not kept.
func (g *collector) over() (bool, error) {
	if g.o.Limits.Max > 0 && g.o.Room > g.o.Limits.Max-g.total {
		return true, nil
	}
	if g.o.Limits.Free <= 0 && g.o.Room <= 0 {
		return false, nil
	}
	free, err := g.c.free()
	return free >= 0 && g.o.Room > free-g.o.Limits.Free, err
}

// room returns for how many bytes there would be room if all these images were evicted. The number is negative if the
// limits could not be kept even then. Known says whether anything bounds the room.
func (g *collector) room(victims []v1.Descriptor, limits Limits) (room int64, known bool, err error) {
	return g.c.roomOf(g.total, g.staying(victims), limits)
}

// staying returns how many bytes would be left if all these images were evicted.
func (g *collector) staying(victims []v1.Descriptor) (bytes int64) {
	stay := g.without(victims)
	for d, size := range g.sizes {
		if stay(d) {
			bytes += size
		}
	}
	return bytes
}

// roomOf is room for a cache with total bytes, of which some have to stay.
func (c *Cache) roomOf(total, stays int64, limits Limits) (room int64, known bool, err error) {
	free, err := c.free()
	if err != nil {
		return 0, false, err
	}
	if free >= 0 {
		room, known = free+total-stays-limits.Free, true
	}
	if most := limits.Max; most > 0 && (!known || most-stays < room) {
		room, known = most-stays, true
	}
	return room, known, nil
}

// fits returns an error if there would not be enough room even if all victims were evicted.
func (g *collector) fits(victims []v1.Descriptor) error {
	room, known, err := g.room(victims, g.o.Limits)
	if err != nil || !known || room >= g.o.Room {
		return err
	}
	full := &noRoom{g.o.Room, max(0, room), g.pins()}
	if room+full.pins.bytes >= g.o.Room {
		return full.pins.inTheWay(full)
	}
	return errkind.Errorf("cache-full", "%w", full)
}

// noRoom is a lack of space that comes from the limits, and not from the file system.
type noRoom struct {
	need, room int64
	pins       pins
}

func (e *noRoom) Error() string {
	text := fmt.Sprintf("needs %s, and the limits of the cache leave room for %s", bytesize.Text(e.need), bytesize.Text(e.room))
	if len(e.pins.names) > 0 {
		text += "; " + e.pins.String()
	}
	return text
}

func (e *noRoom) Is(target error) bool { return target == syscall.ENOSPC }

// evictable returns the images of which nobody says that they stay.
func (g *collector) evictable() []v1.Descriptor {
	return slices.DeleteFunc(slices.Clone(g.index.Manifests), func(d v1.Descriptor) bool {
		return len(g.keepers.of(d)) > 0 || g.leased[d.Digest] || slices.Contains(g.o.Keep, refName(d))
	})
}

// victims returns the images that may be evicted, the one that was not used for longest first. It leaves out images
// whose blobs all stay because others need them: evicting these frees nothing.
func (g *collector) victims() []v1.Descriptor {
	if g.o.Limits == (Limits{}) {
		return nil
	}
	list := g.evictable()
	stays := g.without(list)
	list = slices.DeleteFunc(list, func(d v1.Descriptor) bool {
		return !slices.ContainsFunc(g.blobs[d.Digest], func(b digest.Digest) bool { return !stays(b) })
	})
	used := map[digest.Digest]time.Time{}
	for _, d := range list {
		used[d.Digest] = g.c.lastUsed(d.Digest)
	}
	slices.SortStableFunc(list, func(a, b v1.Descriptor) int {
		return cmp.Or(used[a.Digest].Compare(used[b.Digest]), cmp.Compare(refName(a), refName(b)))
	})
	return list
}

// without returns a function that reports whether a blob stays when these images are evicted.
func (g *collector) without(images []v1.Descriptor) func(digest.Digest) bool {
	needs := maps.Clone(g.needs)
	for _, d := range images {
		for _, b := range g.blobs[d.Digest] {
			needs[b]--
		}
	}
	return func(b digest.Digest) bool {
		_, there := g.sizes[b]
		return !there || needs[b] > 0 || g.leased[b] || g.needs[b] == 0 && g.fresh(b) && !g.ours(b)
	}
}

// free returns how many bytes are free in the file system of the cache, or -1 if that is not known.
func (c *Cache) free() (int64, error) {
	f, err := c.fs.OpenFile("ingest", os.O_RDONLY, 0)
	if err != nil {
		return -1, err
	}
	defer f.Close()
	free, _, err := durable.Space(f)
	return free, err
}
