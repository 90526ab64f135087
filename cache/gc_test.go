package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// refs are the references in the cache; every image that is named has to be whole.
func refs(t *testing.T, c *Cache) []string {
	t.Helper()
	index, err := c.readIndex()
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, d := range index.Manifests {
		list = append(list, refName(d))
		if lacks := c.missing(d); len(lacks) > 0 {
			t.Errorf("%s lacks %v", refName(d), lacks)
		}
	}
	slices.Sort(list)
	return list
}

// use sets when an image was last used, so many hours ago.
func use(t *testing.T, c *Cache, im image, hours int) {
	t.Helper()
	at := time.Now().Add(-time.Duration(hours) * time.Hour)
	if err := c.fs.Chtimes("used/"+flat(im.root().Digest), at, at); err != nil {
		t.Fatal(err)
	}
}

func (c *Cache) has(d digest.Digest) bool { size, _ := c.trusted(d); return size >= 0 }

func TestGC(t *testing.T) {
	ctx := t.Context()
	c := mustOpen(t)
	images := map[string]image{}
	for i, name := range []string{"a", "b", "c", "d"} {
		im := newImage(v1.MediaTypeImageLayer, strings.Repeat(name, 10_000))
		images[name] = im
		mustPush(t, c, "x/"+name+":1", im)
		use(t, c, im, 10-i)
	}
	mustPush(t, c, "x/also:a", images["a"])
	use(t, c, images["a"], 10)
	if err := c.Pin(ctx, "x/b:1", true); err != nil {
		t.Fatal(err)
	}

	// Within the limits nothing goes.
	if r, err := c.GC(ctx, GCOptions{Limits: Limits{Max: 1 << 20}}); err != nil || r.Blobs > 0 || len(r.Images) > 0 {
		t.Errorf("removed %+v, %v", r, err)
	}
	// What was not used for longest goes first; a blob stays as long as another name needs it;
	// what is pinned stays.
	r, err := c.GC(ctx, GCOptions{Limits: Limits{Max: 22_000}, Grace: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(r.Images, r.Blobs); got != "[x/a:1 x/also:a x/c:1] 6" {
		t.Errorf("removed %s", got)
	}
	if got := fmt.Sprint(refs(t, c)); got != "[x/b:1 x/d:1]" {
		t.Errorf("left %s", got)
	}
	// A pin moves with its reference.
	mustPush(t, c, "x/b:1", images["c"])
	if r, err := c.GC(ctx, GCOptions{Limits: Limits{Max: 1}}); err != nil || fmt.Sprint(refs(t, c)) != "[x/b:1]" || fmt.Sprint(r.Images) != "[x/d:1]" {
		t.Errorf("removed %+v, left %v, %v", r, refs(t, c), err)
	}
	if c.has(images["b"].blobs[0].Digest) {
		t.Error("the layer that the reference left is still there, without grace")
	}
	if err := c.Pin(ctx, "x/b:1", false); err != nil {
		t.Fatal(err)
	}
	if _, err := c.GC(ctx, GCOptions{Limits: Limits{Max: 1}}); err != nil || len(refs(t, c)) > 0 || len(names(t, c.Dir()+"/blobs/sha256")) > 0 {
		t.Errorf("left %v, %v", refs(t, c), err)
	}
	if err := c.Pin(ctx, "x/b:1", true); !errors.Is(err, ErrNotFound) {
		t.Errorf("pin of nothing: %v", err)
	}
}

func TestGCKeeps(t *testing.T) {
	ctx := t.Context()
	c := mustOpen(t)
	im := newImage(v1.MediaTypeImageLayer, "layer")
	// A blob without an image, as another tool may be about to name it.
	stray := digest.FromString("stray")
	if err := os.WriteFile(c.Dir()+"/blobs/sha256/"+stray.Encoded(), []byte("stray"), 0o444); err != nil {
		t.Fatal(err)
	}
	// An image of a transfer that is under way, its blobs there, its name not.
	tr := c.Transfer("x/a:1", TransferOptions{})
	if _, _, err := tr.Offer(ctx, im.blobs); err != nil {
		t.Fatal(err)
	}
	for _, d := range im.blobs {
		w, err := tr.Begin(ctx, d, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(im.bytes[d.Digest]); err != nil {
			t.Fatal(err)
		}
		if err := w.Commit(ctx, d); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := c.GC(ctx, GCOptions{Grace: time.Hour, Limits: Limits{Max: 1}}); err != nil || r.Blobs > 0 {
		t.Errorf("removed %+v, %v", r, err)
	}
	if r, err := c.GC(ctx, GCOptions{Limits: Limits{Max: 1}}); err != nil || r.Blobs != 1 || c.has(stray) {
		t.Errorf("without grace: removed %+v, %v", r, err)
	}
	if _, err := tr.Prepare(ctx, im.blobs); err != nil {
		t.Fatal(err)
	}
	if err := tr.Publish(ctx); err != nil {
		t.Fatal(err)
	}
	if err := tr.Close(); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(refs(t, c)) != "[x/a:1]" {
		t.Errorf("have %v", refs(t, c))
	}

	// Where a manifest cannot be read nobody knows what it needs: nothing goes.
	orphan := newImage(v1.MediaTypeImageLayer, "orphan")
	mustPush(t, c, "x/o:1", orphan)
	if _, err := c.Remove(ctx, "x/o:1"); err != nil {
		t.Fatal(err)
	}
	if c.has(orphan.blobs[0].Digest) {
		t.Error("rm left a layer that nothing needs")
	}
	if _, err := c.Remove(ctx, "x/o:1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("rm of nothing: %v", err)
	}
}

// A transfer makes room by evicting, where the cache has limits; but never what it is about to replace,
// or needs.
func TestMakeRoom(t *testing.T) {
	c := mustOpen(t)
	old, kept := newImage(v1.MediaTypeImageLayer, strings.Repeat("o", 10_000)), newImage(v1.MediaTypeImageLayer, strings.Repeat("k", 10_000))
	mustPush(t, c, "x/old:1", old)
	mustPush(t, c, "x/kept:1", kept)
	use(t, c, old, 2)
	c.SetLimits(Limits{Max: 22_000})
	mustPush(t, c, "x/kept:1", kept) // held: needs no room
	if got := fmt.Sprint(refs(t, c)); got != "[x/kept:1 x/old:1]" {
		t.Errorf("have %s", got)
	}
	mustPush(t, c, "x/new:1", newImage(v1.MediaTypeImageLayer, strings.Repeat("n", 10_000)))
	if got := fmt.Sprint(refs(t, c)); got != "[x/kept:1 x/new:1]" {
		t.Errorf("have %s", got)
	}
}

// A blob that rotted is put aside and comes again.
func TestQuarantine(t *testing.T) {
	c := mustOpen(t)
	im := newImage(v1.MediaTypeImageLayer, "layer")
	mustPush(t, c, "x/a:1", im)
	path, err := c.BlobPath(im.blobs[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("rotte"), 0o444); err != nil {
		t.Fatal(err)
	}
	bad, err := c.Verify(t.Context(), func(Result) {})
	if err != nil || bad != 2 { // the blob, and the image that lacks it now
		t.Errorf("%d bad, %v", bad, err)
	}
	if got := names(t, c.Dir()+"/quarantine"); len(got) != 1 || got[0] != flat(im.blobs[0].Digest) {
		t.Errorf("in quarantine: %v", got)
	}
	mustPush(t, c, "x/a:1", im)
	if bad, err := c.Verify(t.Context(), func(Result) {}); err != nil || bad != 0 {
		t.Errorf("%d bad after the next push, %v", bad, err)
	}
}

// Pushes, readers and GC without any grace, in many rounds: no push fails, what is named is whole, what
// is read is right.
func TestGCRace(t *testing.T) {
	const rounds = 1000
	c := mustOpen(t)
	shared := strings.Repeat("shared", 1000)
	var images []image
	for i := range 4 {
		images = append(images, newImage(v1.MediaTypeImageLayer, shared), newImage(v1.MediaTypeImageLayer, fmt.Sprint(i, shared)))
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var beside sync.WaitGroup
	every := func(f func(i int) error) {
		beside.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				if err := f(i); err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
			}
		})
	}
	every(func(i int) error {
		_, err := c.GC(ctx, GCOptions{Limits: Limits{Max: int64(1 + i%3*7000)}})
		return err
	})
	every(func(int) error { // as the mirror reads
		list, err := c.References()
		if err != nil {
			return err
		}
		for _, r := range list {
			for _, im := range images {
				d, err := c.Find([]v1.Descriptor{r.Root}, im.blobs[0].Digest)
				if err != nil {
					continue
				}
				f, err := c.OpenVerified(ctx, d)
				if err != nil {
					continue // gone meanwhile
				}
				b, err := io.ReadAll(f)
				f.Close()
				if err != nil || digest.FromBytes(b) != d.Digest {
					return fmt.Errorf("read %d bytes of %s: %w", len(b), d.Digest, err)
				}
			}
		}
		return nil
	})
	var pushes sync.WaitGroup
	for p := range 2 {
		pushes.Go(func() {
			for i := range rounds / 2 {
				im := images[(i+p)%len(images)]
				if _, err := push(c, fmt.Sprintf("x/%d:%d", p, i%3), im); err != nil {
					t.Errorf("round %d: %v", i, err)
					return
				}
			}
		})
	}
	pushes.Wait()
	stop()
	beside.Wait()
	refs(t, c)
	if left := names(t, c.Dir()+"/ingest"); len(left) > 0 {
		t.Errorf("left in ingest: %v", left)
	}
}
