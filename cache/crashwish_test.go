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

// The images of the sweeps of wishes, the one that was not used for longest first.
var (
	wishOrder  = []string{"before", "old", "now", "theirs", "plain"}
	wishImages = func() map[string]image {
		images := map[string]image{}
		for _, name := range wishOrder {
			images[name] = newImage(v1.MediaTypeImageLayer, strings.Repeat(name[:1], 2000)+name)
		}
		return images
	}()
)

func wishFor(ref string, images ...string) (list []Wish) {
	for _, name := range images {
		list = append(list, Wish{Name: ref, Digest: wishImages[name].root().Digest, Keep: 2})
	}
	list, err := sortWishes(list)
	if err != nil {
		panic(err)
	}
	return list
}

var (
	wishesBefore = wishFor("x/a:1", "old", "before")
	wishesAfter  = wishFor("x/a:1", "now", "old")
	wishesOfOne  = wishFor("x/b:1", "theirs")
)

// setupWishes makes a cache in which a name has moved from one image to the next.
func setupWishes(f *crashfs.FS) (*Cache, error) {
	c, err := open(f, "cache")
	if err != nil {
		return nil, err
	}
	err = errors.Join(c.SetWishes(context.Background(), "head1", wishesBefore), c.SetWishes(context.Background(), "head2", wishesOfOne))
	for i, name := range wishOrder {
		ref := map[string]string{"before": "x/a:1", "old": "x/a:1", "theirs": "x/b:1"}[name]
		if ref == "" {
			ref = "x/" + name + ":1"
		}
		_, perr := push(c, ref, wishImages[name])
		err = errors.Join(err, perr, usedAt(f, wishImages[name], time.Now().Add(time.Duration(i-10)*time.Hour)))
	}
	return c, errors.Join(err, f.SyncDir("used"))
}

// judgeWishes says whether the old list of an owner is in force or the new one, that of the other owner as it was, and
// everything is here that one of them wants.
func judgeWishes(c *Cache, done bool) error {
	w, err := c.Wishes()
	if err != nil {
		return err
	}
	if got := w["head1"]; !slices.Equal(got, wishesAfter) && (done || !slices.Equal(got, wishesBefore)) {
		return fmt.Errorf("wanted is %v", got)
	}
	if got := w["head2"]; !slices.Equal(got, wishesOfOne) || len(w) != 2 {
		return fmt.Errorf("another owner wants %v of %v", got, w)
	}
	here := complete(c, wishImages)
	for owner, list := range w {
		for _, wish := range list {
			if !slices.ContainsFunc(here, func(name string) bool { return wishImages[name].root().Digest == wish.Digest }) {
				return fmt.Errorf("%s wants %s, and it is not here, but %v", owner, wish.Digest, here)
			}
		}
	}
	return sound(c)
}

// Whatever write of the wishes is the last one, the old list is in force or the new one, and no GC that comes then, also in
// the process whose write has failed, removes what is wanted.
func TestCrashSweepWishes(t *testing.T) {
	t.Parallel()
	gc := func(c *Cache, most int64) error {
		_, err := c.GC(context.Background(), GCOptions{Limits: Limits{Max: most}})
		return err
	}
	set := func(c *Cache) error { return c.SetWishes(context.Background(), "head1", wishesAfter) }
	for name, work := range map[string]func(*Cache) error{
		"a write": set,
		// This GC evicts no image, or its write of the index would make the wishes durable.
		"a write and a GC": func(c *Cache) error { return errors.Join(set(c), gc(c, 0)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mustSurvive(t, func(lie func(*crashfs.FS)) error { return sweepWishes(work, set, gc, lie) })
		})
	}
}

func sweepWishes(work, again func(*Cache) error, gc func(*Cache, int64) error, lie func(*crashfs.FS)) error {
	var running *Cache
	return crashfs.Sweep(func() (f *crashfs.FS, err error) {
		f = crashfs.New()
		running, err = setupWishes(f)
		lie(f)
		return f, err
	}, func(*crashfs.FS) error { return work(running) }, func(f *crashfs.FS, worked error) error {
		c, err := open(f, "cache")
		if err != nil {
			return fmt.Errorf("open: %w", err)
		}
		if err := judgeWishes(c, worked == nil); err != nil {
			return err
		}
		// A GC makes the list durable that it goes by, so it has a copy of its own.
		other, err := open(f.Reboot(crashfs.Newest, crashfs.Newest), "cache")
		if err != nil {
			return fmt.Errorf("open for a gc: %w", err)
		}
		if err := gc(other, 0); err != nil {
			return fmt.Errorf("gc: %w", err)
		}
		if err := judgeWishes(other, worked == nil); err != nil {
			return fmt.Errorf("after a gc: %w", err)
		}
		if f.SyncLies() {
			return nil
		}
		if err := again(c); err != nil {
			return fmt.Errorf("again: %w", err)
		}
		if c, err = open(f.Reboot(crashfs.Oldest, crashfs.Oldest), "cache"); err != nil {
			return fmt.Errorf("open after it was done again: %w", err)
		}
		if err := gc(c, 1); err != nil {
			return fmt.Errorf("gc that evicts: %w", err)
		}
		return judgeWishes(c, true)
	})
}
