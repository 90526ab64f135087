package cache

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// A hold is a lease of an image that is served, in a directory of its own. Unlike other leases it ends for a transfer
// that lacks room, or else anybody could keep every image here by asking for it now and then. A hold stays while its
// image is being pulled. Its modification time says when somebody last asked for a part of the image and was about to
// ask for more, so that a transfer of another process knows, too. A transfer ends a hold by removing its file.

const (
	pullFor  = 10 * time.Second // how long after that time an image is being pulled, at most
	maxPulls = 4                // how many images are being pulled as far as room is concerned, those asked for last
)

// notPulled is the modification time of a hold whose image nobody pulls.
var notPulled = time.Unix(0, 0)

// Hold keeps the blobs of an image from being removed, whatever happens to its names.
type Hold struct {
	// Blobs are those of the image. Not all of them need be there; Startable looks.
	Blobs []v1.Descriptor

	c *Cache
	l *lease
}

// Hold holds an image until Release is called, a transfer lacks room, or this process ends.
func (c *Cache) Hold(ctx context.Context, root v1.Descriptor) (*Hold, error) {
	unlock, err := c.lockIndex(ctx) // after this, a GC that was under way removes nothing more
	if err != nil {
		return nil, err
	}
	defer unlock()
	list, err := c.reach(root)
	if err != nil {
		return nil, fmt.Errorf("cache %s: hold: %w", c.dir, err)
	}
	digests := make([]digest.Digest, len(list))
	for i, d := range list {
		digests[i] = d.Digest
	}
	l, err := newLease(c.fs, "holds")
	if err == nil {
		h := &Hold{list, c, l}
		if err = l.add(digests...); err == nil {
			err = h.Pulled(false)
		}
		if err == nil {
			return h, nil
		}
		h.Release()
	}
	return nil, fmt.Errorf("cache %s: hold %s: %w", c.dir, root.Digest, err)
}

// Pulled notes that somebody asked for a part of the image, and whether there is more to ask for.
func (h *Hold) Pulled(more bool) error {
	at := notPulled
	if more {
		at = time.Now()
	}
	return h.l.f.Chtimes(at, at)
}

// Ended reports whether a transfer has ended the hold.
func (h *Hold) Ended() bool {
	return !h.l.stands(h.c.fs)
}

// Release ends the hold.
func (h *Hold) Release() { h.l.close(h.c.fs) }

// endHolds ends the holds of all processes but those of the images that are being pulled. It reports whether there were
// any. The caller holds the lock of the index.
func (c *Cache) endHolds() (any bool) {
	names, err := c.fs.Names("holds")
	if err != nil {
		return false
	}
	type held struct {
		name   string
		pulled time.Time
	}
	var all []held
	for _, name := range names {
		name = "holds/" + name
		if info, err := c.fs.Lstat(name); err == nil {
			all = append(all, held{name, info.ModTime()})
		}
	}
	slices.SortFunc(all, func(a, b held) int { return b.pulled.Compare(a.pulled) })
	for i, h := range all {
		if i < maxPulls && time.Since(h.pulled) < pullFor {
			continue
		}
		any = c.fs.Remove(h.name) == nil || any
	}
	return any
}
