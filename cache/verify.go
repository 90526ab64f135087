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

// Result is what Verify found out about one blob, or about one reference to a blob.
type Result struct {
	Ref    string        // the image that lacks the blob; "" if the blob is there
	Digest digest.Digest // "" if the file is no blob
	Size   int64         // bytes
	Err    error         // nil if the blob is right
}

// Verify reads every blob again and compares it with its digest. Then it checks that
// everything that index.json names is there. It reports each blob, and each reference to
// a missing one, and returns how many of these were bad. The error is about what kept it
// from looking. If this user may, Verify moves a blob with wrong bytes to quarantine. A bad
// blob is no longer trusted, so the next transfer brings it again.
func (c *Cache) Verify(ctx context.Context, report func(Result)) (bad int, err error) {
	return c.VerifyProgress(ctx, report, func(done, all int64) {})
}

// VerifyProgress is Verify, and calls got as it gets on, with how many of the bytes that were there at its beginning are read.
func (c *Cache) VerifyProgress(ctx context.Context, report func(Result), got func(done, all int64)) (bad int, err error) {
	tell := func(r Result) {
		if r.Err != nil {
			bad++
		}
		report(r)
	}
	list, all, err := c.blobFiles()
	if err != nil {
		return bad, fmt.Errorf("cache %s: %w", c.dir, err)
	}
	done := int64(0)
	for _, d := range list {
		r := c.verify(ctx, d, func(n int) {
			done += int64(n)
			got(done, all)
		})
		if errors.Is(r.Err, fs.ErrNotExist) {
			continue // it was removed meanwhile
		}
		if err := ctx.Err(); err != nil {
			return bad, err
		}
		tell(r)
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

// blobFiles returns what lies where blobs do, in order, and how many bytes that has.
func (c *Cache) blobFiles() (list []digest.Digest, bytes int64, err error) {
	algorithms, err := c.fs.Names("blobs")
	if err != nil {
		return nil, 0, err
	}
	slices.Sort(algorithms)
	for _, a := range algorithms {
		names, err := c.fs.Names("blobs/" + a)
		if err != nil {
			return nil, 0, err
		}
		slices.Sort(names)
		for _, name := range names {
			list = append(list, digest.NewDigestFromEncoded(digest.Algorithm(a), name))
			if info, err := c.fs.Lstat("blobs/" + a + "/" + name); err == nil {
				bytes += info.Size()
			}
		}
	}
	return list, bytes, nil
}

func (c *Cache) verify(ctx context.Context, d digest.Digest, read func(bytes int)) Result {
	name, err := blobName(d)
	if err != nil {
		return Result{Err: fmt.Errorf("cache %s: blobs: %w", c.dir, err)}
	}
	r := Result{Digest: d}
	if info, err := c.fs.Lstat(name); err == nil {
		r.Size = info.Size()
	}
	info, err := c.hash(ctx, d, read)
	if err != nil {
		r.Err = fmt.Errorf("cache %s: blob %s: %w", c.dir, d, err)
		switch {
		case ctx.Err() != nil:
		case errors.Is(err, errWrong) && c.quarantine(ctx, d, info) == nil:
			r.Err = fmt.Errorf("%w; it was moved to quarantine", r.Err)
		default: // this includes a blob that cannot be read, because nobody could start its image
			c.distrust(d)
		}
		return r
	}
	if _, ok := c.trusted(d); !ok {
		c.trust(d, info)
	}
	return r
}

// missing lists what the image root lacks. It does not look below a manifest that cannot
// be read.
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

// quarantine moves a blob with wrong bytes out of the way, to where an administrator can look at it. Info is
// what the blob looked like when it was read. The next transfer brings the blob again.
func (c *Cache) quarantine(ctx context.Context, d digest.Digest, info fs.FileInfo) error {
	name, err := blobName(d)
	if err != nil {
		return err
	}
	unlock, err := c.lockIndex(ctx) // under the lock, nobody puts the right blob there
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

// quarantined reports whether the blob is missing because it had wrong bytes.
func (c *Cache) quarantined(d digest.Digest) bool {
	_, err := c.fs.Lstat("quarantine/" + flat(d))
	return err == nil
}

const quarantineFor = 7 * 24 * time.Hour

// emptyQuarantine removes what has been in quarantine for a week.
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
