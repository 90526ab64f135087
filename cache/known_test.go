package cache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dolly-img/dolly-img/cache/durable"
)

// looks counts what is asked of a file system.
type looks struct {
	durable.FS
	n *int
}

func (l looks) Lstat(name string) (os.FileInfo, error) { *l.n++; return l.FS.Lstat(name) }

func (l looks) OpenFile(name string, flag int, perm os.FileMode) (durable.File, error) {
	*l.n++
	return l.FS.OpenFile(name, flag, perm)
}

// calm gives the directories of a cache times of long ago, as if nothing had happened there since. In a bubble of synctest what happens
// then is in the future, and so younger than any time that is trusted.
func calm(t *testing.T, c *Cache) {
	t.Helper()
	for _, place := range places {
		at := time.Now().Add(-time.Hour)
		if err := os.Chtimes(filepath.Join(c.Dir(), place), at, at); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
}

// Who asks without end costs some system calls for each question, whatever it is about, and all that changes shows: what comes, goes or
// is replaced at once, and bytes that are written into a blob within a second.
func TestHoldsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := mustOpen(t)
		c.SetLimits(Limits{Max: 1 << 30})
		var images []image
		var asked []Asked
		for i := range 10 {
			im := indexOf(layered(fmt.Sprint("a", i)), layered(fmt.Sprint("b", i)))
			name := fmt.Sprint("x/a:", i)
			mustPush(t, c, name, im)
			mustWish(t, c, fmt.Sprint("head", i), Wish{Name: name, Digest: at(im)})
			images, asked = append(images, im), append(asked, Asked{name, at(im)})
		}
		calm(t, c)
		n := 0
		c.fs = looks{c.fs, &n}
		ask := func() Holdings {
			t.Helper()
			h, err := c.Holds(t.Context(), asked, true)
			if err != nil {
				t.Fatal(err)
			}
			return h
		}
		first := ask()
		if h := first.Images[9]; h.State != HeldAll || first.Wanted == 0 || first.Free <= 0 {
			t.Fatalf("%+v", first)
		}
		n = 0
		for range 100 {
			ask()
		}
		if n > 100*(len(places)+2) {
			t.Errorf("100 questions have cost %d looks", n)
		}
		layer := images[3].blobs[0]
		path := func() string { name, _ := blobName(layer.Digest); return filepath.Join(c.Dir(), name) }()
		state := func(want string) {
			t.Helper()
			if h := ask().Images[3]; h.State != want {
				t.Errorf("%+v, want %s", h, want)
			}
		}
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, make([]byte, layer.Size), 0o644); err != nil {
			t.Fatal(err)
		}
		time.Sleep(lookedFor)
		state(HeldPart)
		mustPush(t, c, "x/a:3", images[3])
		state(HeldAll)
		calm(t, c)
		state(HeldAll)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		state(HeldPart)
		calm(t, c)
		if now := ask(); now.Wanted != first.Wanted-layer.Size {
			t.Errorf("%d bytes are wanted, and were %d before %d went", now.Wanted, first.Wanted, layer.Size)
		}
		c.SetLimits(Limits{Max: 1 << 20})
		if now := ask(); now.Free > 1<<20 {
			t.Errorf("room for %d bytes", now.Free)
		}
	})
}

// A question ends with its context, also where it only adds up what is wanted and how much room there is.
func TestHoldsEnds(t *testing.T) {
	c := mustOpen(t)
	mustPush(t, c, "x/a:1", layered("a"))
	mustWish(t, c, "head1", Wish{Name: "x/a:1", Digest: at(layered("a"))})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, limits := range []Limits{{}, {Max: 1 << 30}} {
		c.SetLimits(limits)
		if h, err := c.Holds(ctx, nil, false); !errors.Is(err, context.Canceled) {
			t.Errorf("%+v, %v", h, err)
		}
		if h, err := c.Holds(t.Context(), nil, false); err != nil || h.Wanted != sizeOf(layered("a")) {
			t.Errorf("after one that was cut off: %+v, %v", h, err)
		}
	}
}
