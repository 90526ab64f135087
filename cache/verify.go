package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Result is what Verify found of one blob, or of one reference to a blob.
type Result struct {
	Ref    string        // of the image that lacks the blob; "" of a blob that is there
	Digest digest.Digest // "" of a file that has no business among the blobs
	Size   int64         // bytes
	Err    error         // nil: right
}

// Verify reads every blob again and compares it with its digest, then looks
// whether everything that index.json names is there. It reports each blob, and
// each reference to one that is missing, and returns how many of these were bad;
// the error is about what kept it from looking. A blob with wrong bytes is moved to
// quarantine, where this user may, and any bad one is no longer trusted: the next
// transfer brings it again.
func (c *Cache) Verify(ctx context.Context, report func(Result)) (bad int, err error) {
	tell := func(r Result) {
		if r.Err != nil {
			bad++
		}
		report(r)
	}
	algorithms, err := c.fs.Names("blobs")
	if err != nil {
		return bad, fmt.Errorf("cache %s: %w", c.dir, err)
	}
	slices.Sort(algorithms)
	for _, a := range algorithms {
		names, err := c.fs.Names("blobs/" + a)
		if err != nil {
			return bad, fmt.Errorf("cache %s: %w", c.dir, err)
		}
		slices.Sort(names)
		for _, name := range names {
			r := c.verify(ctx, digest.NewDigestFromEncoded(digest.Algorithm(a), name))
			if errors.Is(r.Err, fs.ErrNotExist) {
				continue // removed meanwhile
			}
			if err := ctx.Err(); err != nil {
				return bad, err
			}
			tell(r)
		}
	}
	index, err := c.readIndex()
	if err != nil {
		return bad, err
	}
	for _, d := range index.Manifests {
		for _, r := range c.missing(d) {
			tell(r)
		}
	}
	return bad, nil
}

func (c *Cache) verify(ctx context.Context, d digest.Digest) Result {
	name, err := blobName(d)
	if err != nil {
		return Result{Err: fmt.Errorf("cache %s: blobs: %w", c.dir, err)}
	}
	r := Result{Digest: d}
	if info, err := c.fs.Lstat(name); err == nil {
		r.Size = info.Size()
	}
	info, err := c.hash(ctx, d)
	if err != nil {
		r.Err = fmt.Errorf("cache %s: blob %s: %w", c.dir, d, err)
		switch {
		case ctx.Err() != nil:
		case errors.Is(err, errWrong) && c.quarantine(ctx, d, info) == nil:
			r.Err = fmt.Errorf("%w; it was moved to quarantine", r.Err)
		default: // also what cannot be read: nobody could start it
			c.distrust(d)
		}
		return r
	}
	if _, ok := c.trusted(d); !ok {
		c.trust(d, info)
	}
	return r
}

// missing lists what the image root lacks. A manifest that cannot be read ends
// the search below it: what it needs is not known.
func (c *Cache) missing(root v1.Descriptor) (lacks []Result) {
	lack := func(d v1.Descriptor, err error) {
		lacks = append(lacks, Result{Ref: refName(root), Digest: d.Digest, Size: d.Size,
			Err: fmt.Errorf("%q lacks a blob: %w", refName(root), err)})
	}
	err := c.walk(root, func(d v1.Descriptor) error {
		err := c.present(d)
		if err != nil {
			lack(d, err)
		}
		if err != nil && (isManifest(d.MediaType) || isIndex(d.MediaType)) {
			return err
		}
		return nil
	})
	if err != nil && len(lacks) == 0 {
		lack(root, err)
	}
	return lacks
}

// quarantine moves a blob with wrong bytes, which looked like info, out of the way, where it can
// be looked at. The next transfer brings the blob again.
func (c *Cache) quarantine(ctx context.Context, d digest.Digest, info fs.FileInfo) error {
	name, err := blobName(d)
	if err != nil {
		return err
	}
	unlock, err := c.lockIndex(ctx) // nobody puts the right one there meanwhile
	if err != nil {
		return err
	}
	defer unlock()
	now, err := c.fs.Lstat(name)
	if err != nil {
		return err
	}
	if stampOf(now) != stampOf(info) {
		return fmt.Errorf("blob %s changed meanwhile", d)
	}
	if err := mkdirs(c.fs, "quarantine"); err != nil {
		return err
	}
	c.distrust(d)
	return c.fs.Rename(name, "quarantine/"+flat(d))
}

// quarantined says whether the blob is not there because it had wrong bytes.
func (c *Cache) quarantined(d digest.Digest) bool {
	_, err := c.fs.Lstat("quarantine/" + flat(d))
	return err == nil
}

const quarantineFor = 7 * 24 * time.Hour

// emptyQuarantine removes what was looked at, or will not be.
func (c *Cache) emptyQuarantine(now time.Time) error {
	names, err := c.fs.Names("quarantine")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, name := range names {
		name = path.Join("quarantine", name)
		if info, err := c.fs.Lstat(name); err == nil && now.Sub(time.Unix(0, stat(info).Ctim.Nano())) > quarantineFor {
			if err := c.fs.Remove(name); err != nil {
				return err
			}
		}
	}
	return err
}
