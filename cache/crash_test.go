//go:build !race

package cache

import (
	"context"
	"errors"
	"fmt"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/ring/ringtest/crashfs"
)

const (
	moving = "localhost/moving:latest" // names another image after the work
	other  = "localhost/other:latest"  // has nothing to do with it
)

// sweepPush pushes an image for every operation that may fail or be the last.
func sweepPush(lie func(*crashfs.FS)) error {
	before, after := newImage(mediaTypeSIFLayer, "the old SIF"), newImage(mediaTypeSIFLayer, "the new SIF")
	layers := newImage(v1.MediaTypeImageLayer, "a layer")
	return crashfs.Sweep(func() (*crashfs.FS, error) {
		f := crashfs.New()
		c, err := open(f, "cache")
		if err != nil {
			return nil, err
		}
		_, err = push(c, moving, before)
		_, err2 := push(c, other, layers)
		lie(f)
		return f, errors.Join(err, err2)
	}, func(f *crashfs.FS) error {
		c, err := open(f, "cache")
		if err != nil {
			return err
		}
		_, err = push(c, moving, after)
		return err
	}, func(f *crashfs.FS, worked error) error {
		c, err := open(f, "cache")
		if err != nil {
			return fmt.Errorf("open: %w", err)
		}
		if err := sound(c); err != nil {
			return err
		}
		d, err := c.Resolve(moving)
		if err != nil {
			return err
		}
		if d.Digest != after.root().Digest && (d.Digest != before.root().Digest || worked == nil) {
			return fmt.Errorf("the reference names %s", d.Digest)
		}
		if d, err := c.Resolve(other); err != nil || d.Digest != layers.root().Digest {
			return fmt.Errorf("the other reference: %v, %w", d.Digest, err)
		}
		if _, err := push(c, moving, after); err != nil {
			return fmt.Errorf("again: %w", err)
		}
		// That worked, so no power loss takes it back. (A lie about that would be found here
		// always, and nobody know whether it is above.)
		if f.SyncLies() {
			return nil
		}
		if c, err = open(f.Reboot(crashfs.Oldest, crashfs.Oldest), "cache"); err != nil {
			return fmt.Errorf("open after it was done again: %w", err)
		}
		if d, err := c.Resolve(moving); err != nil || d.Digest != after.root().Digest {
			return fmt.Errorf("after it was done again: the reference: %v, %w", d.Digest, err)
		}
		return sound(c)
	})
}

// sound says whether every blob is right and every image complete, no record
// vouches for a wrong one, and nothing that was arriving is left.
func sound(c *Cache) error {
	var first error
	_, err := c.Verify(context.Background(), func(r Result) {
		if first == nil {
			first = r.Err
		}
	})
	if err != nil || first != nil {
		return errors.Join(err, first)
	}
	for _, dir := range []string{"ingest", "leases"} {
		if names, err := c.fs.Names(dir); err != nil || len(names) > 0 {
			return fmt.Errorf("in %s: %v, %w", dir, names, err)
		}
	}
	return nil
}

func TestCrashSweepPush(t *testing.T) { mustSurvive(t, sweepPush) }

// mustSurvive demands that a sweep finds no fault, and that it finds one where syncs lie.
func mustSurvive(t *testing.T, sweep func(lie func(*crashfs.FS)) error) {
	t.Helper()
	if err := sweep(func(*crashfs.FS) {}); err != nil {
		t.Error(err)
	}
	for _, m := range []struct {
		name        string
		files, dirs bool
	}{{"no fsync of files", true, false}, {"no fsync of directories", false, true}} {
		if err := sweep(func(f *crashfs.FS) { f.IgnoreSync(m.files, m.dirs) }); err == nil {
			t.Errorf("the sweep does not notice: %s", m.name)
		} else {
			t.Logf("%s: %v", m.name, err)
		}
	}
}

// A cache whose making was interrupted is made by the next Open.
func TestCrashSweepOpen(t *testing.T) {
	work := func(f *crashfs.FS) error { _, err := open(f, "cache"); return err }
	err := crashfs.Sweep(func() (*crashfs.FS, error) { return crashfs.New(), nil }, work,
		func(f *crashfs.FS, worked error) error {
			c, err := open(f, "cache")
			if err != nil {
				return fmt.Errorf("open: %w", err)
			}
			if list, err := c.List(); len(list) != 0 || err != nil {
				return fmt.Errorf("list: %v, %w", list, err)
			}
			if _, err := push(c, moving, newImage(mediaTypeSIFLayer, "x")); err != nil {
				return err
			}
			return sound(c)
		})
	if err != nil {
		t.Error(err)
	}
}
