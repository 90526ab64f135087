package cache

import (
	"context"
	"errors"
	"io/fs"

	"github.com/opencontainers/go-digest"
)

// Usage is how much a cache has.
type Usage struct {
	// Bytes is the size of all blobs, which Limits.Max bounds.
	Bytes int64
	// Images is how many entries List has.
	Images int
}

// Usage looks at every blob's size and reads none. It takes no lock, so that what changes meanwhile may be counted or not.
func (c *Cache) Usage() (u Usage, err error) {
	index, err := c.readIndex()
	if err != nil {
		return u, err
	}
	wishes, err := c.readWishes()
	if err != nil {
		return u, err
	}
	u.Images = len(index.Manifests) + len(c.nameless(index, wishes.keepers()))
	_, u.Bytes, err = c.blobSizes(context.Background())
	return u, err
}

// blobSizes returns the size of each blob that is in the cache, and of all together.
func (c *Cache) blobSizes(ctx context.Context) (sizes map[digest.Digest]int64, total int64, err error) {
	sizes = map[digest.Digest]int64{}
	algorithms, err := c.fs.Names("blobs")
	if err != nil {
		return nil, 0, err
	}
	for _, a := range algorithms {
		names, err := c.fs.Names("blobs/" + a)
		if err != nil {
			return nil, 0, err
		}
		for _, name := range names {
			if err := ctx.Err(); err != nil {
				return nil, 0, err
			}
			d := digest.NewDigestFromEncoded(digest.Algorithm(a), name)
			info, err := c.fs.Lstat("blobs/" + a + "/" + name)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, 0, err // if it were not counted, there would seem to be room
			}
			if err != nil || validate(d) != nil || !info.Mode().IsRegular() {
				continue // this is no blob
			}
			sizes[d] = info.Size()
			total += info.Size()
		}
	}
	return sizes, total, nil
}

// Unneeded returns how many bytes of blobs no image needs.
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
