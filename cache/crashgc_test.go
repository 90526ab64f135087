//go:build !race

package cache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/ring/ringtest/crashfs"
)

// named is an image under a reference.
type named struct {
	ref string
	im  image
}

const pinnedBefore = "x/pinned:1"

// The images of sweepRemoval, the one that was not used for longest first. The last two are
// the same one, which is part of the first, too.
var (
	removalA, removalB = newImage(v1.MediaTypeImageLayer, strings.Repeat("a", 2000)), newImage(v1.MediaTypeImageLayer, strings.Repeat("b", 2000))

	removalImages = []named{
		{"x/multi:1", indexOf(removalA, removalB)},
		{pinnedBefore, newImage(v1.MediaTypeImageLayer, strings.Repeat("p", 2000))},
		{"x/second:1", newImage(v1.MediaTypeImageLayer, strings.Repeat("s", 2000))},
		{"x/last:1", removalA},
		{"x/also:1", removalA},
	}
	// No image needs this one: its reference names another.
	removalStray = newImage(v1.MediaTypeImageLayer, strings.Repeat("o", 2000))
)

// removal is something that changes which images stay.
type removal struct {
	work func(*Cache) error // also where part of it, or all, was done before
	keep []string           // the references that stay
	gone []string           // those that are not there afterwards
	pins []string           // those that are pinned afterwards

	limit int64 // bytes of all blobs afterwards; 0: any
}

func setupRemoval(f *crashfs.FS) (*Cache, error) {
	c, err := open(f, "cache")
	if err != nil {
		return nil, err
	}
	_, err = push(c, pinnedBefore, removalStray) // moves with the next one
	for i, x := range removalImages {
		_, perr := push(c, x.ref, x.im)
		at := time.Now().Add(time.Duration(i-10) * time.Hour)
		err = errors.Join(err, perr, usedAt(f, x.im, at))
	}
	// When they were used is not made durable: without this each sweep would have its own order.
	return c, errors.Join(err, f.SyncDir("used"), c.Pin(context.Background(), pinnedBefore, true))
}

// sweepRemoval does r for every operation that may fail or be the last.
func sweepRemoval(r removal, lie func(*crashfs.FS)) error {
	var running *Cache // open before: what may go wrong in open is another sweep's
	return crashfs.Sweep(func() (f *crashfs.FS, err error) {
		f = crashfs.New()
		running, err = setupRemoval(f)
		lie(f)
		return f, err
	}, func(*crashfs.FS) error {
		return r.work(running)
	}, func(f *crashfs.FS, worked error) error {
		c, err := open(f, "cache")
		if err != nil {
			return fmt.Errorf("open: %w", err)
		}
		if err := r.judge(c, worked == nil); err != nil {
			return err
		}
		if err := r.work(c); err != nil {
			return fmt.Errorf("again: %w", err)
		}
		// What was said to be done is so for good. (A lie about that would be found here always,
		// and nobody know whether it is above.)
		if !f.SyncLies() {
			g, err := open(f.Reboot(crashfs.Oldest, crashfs.Oldest), "cache")
			if err == nil {
				err = r.judge(g, true)
			}
			if err != nil {
				return fmt.Errorf("after it was done again, and another power loss: %w", err)
			}
		}
		// Blobs that a removal did not come to are for the next GC.
		if _, err := c.GC(context.Background(), GCOptions{}); err != nil {
			return fmt.Errorf("gc: %w", err)
		}
		if err := r.nothingElse(c); err != nil {
			return err
		}
		return sound(c)
	})
}

// judge says whether what is named is complete and as it was pushed, and what is to stay is there;
// once it is done, what is to go is not. Likewise of the pins.
func (r removal) judge(c *Cache, done bool) error {
	if err := sound(c); err != nil {
		return err
	}
	list, err := c.List()
	if err != nil {
		return err
	}
	var refs, pins []string
	for _, e := range list {
		if e.Err != nil {
			return fmt.Errorf("%s: %w", e.Ref, e.Err)
		}
		refs = append(refs, e.Ref)
		if e.Pinned {
			pins = append(pins, e.Ref)
		}
		i := slices.IndexFunc(removalImages, func(x named) bool { return x.ref == e.Ref })
		if i < 0 || removalImages[i].im.root().Digest != e.Digest {
			return fmt.Errorf("%q names %s", e.Ref, e.Digest)
		}
	}
	for _, ref := range r.keep {
		if !slices.Contains(refs, ref) {
			return fmt.Errorf("%s is gone", ref)
		}
	}
	for _, ref := range r.gone {
		if done && slices.Contains(refs, ref) {
			return fmt.Errorf("%s is there", ref)
		}
	}
	if slices.Contains(r.pins, pinnedBefore) && !slices.Contains(pins, pinnedBefore) {
		return fmt.Errorf("%s is not pinned any more", pinnedBefore)
	}
	for _, ref := range pins {
		if ref != pinnedBefore && !slices.Contains(r.pins, ref) {
			return fmt.Errorf("%s is pinned", ref)
		}
	}
	slices.Sort(pins)
	if done && !slices.Equal(pins, r.pins) {
		return fmt.Errorf("pinned are %v, want %v", pins, r.pins)
	}
	return nil
}

// nothingElse says whether there are blobs that no image needs, or more than the limit.
func (r removal) nothingElse(c *Cache) error {
	index, err := c.readIndex()
	if err != nil {
		return err
	}
	needed := map[string]bool{}
	for _, d := range index.Manifests {
		list, err := c.reach(d)
		if err != nil {
			return err
		}
		for _, b := range list {
			needed[b.Digest.Encoded()] = true
		}
	}
	names, err := c.fs.Names("blobs/sha256")
	if err != nil {
		return err
	}
	total := int64(0)
	for _, name := range names {
		if !needed[name] {
			return fmt.Errorf("blob %s stays, which no image needs", name)
		}
		info, err := c.fs.Lstat("blobs/sha256/" + name)
		if err != nil {
			return err
		}
		total += info.Size()
	}
	if r.limit > 0 && total > r.limit {
		return fmt.Errorf("%d bytes are left, more than %d", total, r.limit)
	}
	return nil
}

// orDone is err, but for one about what is not there: it went before.
func orDone(err error) error {
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

func TestCrashSweepRemove(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for name, r := range map[string]removal{
		"a reference": {
			work: func(c *Cache) error { _, err := c.Remove(ctx, "x/multi:1"); return orDone(err) },
			keep: []string{pinnedBefore, "x/second:1", "x/last:1", "x/also:1"}, gone: []string{"x/multi:1"}, pins: []string{pinnedBefore},
		},
		"a reference, and GC in any case": {
			work: func(c *Cache) error {
				_, err := c.Remove(ctx, "x/multi:1")
				_, err2 := c.GC(ctx, GCOptions{})
				return errors.Join(orDone(err), err2)
			},
			keep: []string{pinnedBefore, "x/second:1", "x/last:1", "x/also:1"}, gone: []string{"x/multi:1"}, pins: []string{pinnedBefore},
		},
		"all names of an image": {
			work: func(c *Cache) error { _, err := c.Remove(ctx, removalA.root().Digest.String()); return orDone(err) },
			keep: []string{"x/multi:1", pinnedBefore, "x/second:1"}, gone: []string{"x/last:1", "x/also:1"}, pins: []string{pinnedBefore},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mustSurvive(t, func(lie func(*crashfs.FS)) error { return sweepRemoval(r, lie) })
		})
	}
}

// Which images go is TestGC's: one whose last use cannot be read may go too early.
func TestCrashSweepGC(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	const limit = 6500 // two of four layers have to go
	mustSurvive(t, func(lie func(*crashfs.FS)) error {
		return sweepRemoval(removal{
			work: func(c *Cache) error {
				res, err := c.GC(ctx, GCOptions{Limits: Limits{Max: limit}})
				if err == nil && res.Over {
					err = errors.New("the limit is not kept")
				}
				return err
			},
			limit: limit,
			keep:  []string{pinnedBefore}, pins: []string{pinnedBefore},
		}, lie)
	})
}

func TestCrashSweepPin(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	r := removal{
		work: func(c *Cache) error {
			if err := c.Pin(ctx, "x/second:1", true); err != nil {
				return err
			}
			return c.Pin(ctx, pinnedBefore, false)
		},
		keep: []string{"x/multi:1", pinnedBefore, "x/second:1", "x/last:1", "x/also:1"}, pins: []string{"x/second:1"},
	}
	mustSurvive(t, func(lie func(*crashfs.FS)) error { return sweepRemoval(r, lie) })
}
