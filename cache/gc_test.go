package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/cache/durable"
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
	if err := usedAt(c.fs, im, at); err != nil {
		t.Fatal(err)
	}
}

func usedAt(fsys durable.FS, im image, at time.Time) error {
	f, err := fsys.OpenFile("used/"+flat(im.root().Digest), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Chtimes(at, at)
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

// Space that shall stay free is made by evicting images, as far as that goes.
func TestGCFree(t *testing.T) {
	c := mustOpen(t)
	for _, name := range []string{"a", "b"} {
		mustPush(t, c, "x/"+name+":1", newImage(v1.MediaTypeImageLayer, name))
	}
	if err := c.Pin(t.Context(), "x/b:1", true); err != nil {
		t.Fatal(err)
	}
	if _, err := c.GC(t.Context(), GCOptions{Limits: Limits{Free: 1}}); err != nil || fmt.Sprint(refs(t, c)) != "[x/a:1 x/b:1]" {
		t.Errorf("a byte is free, and left are %v, %v", refs(t, c), err)
	}
	if _, err := c.GC(t.Context(), GCOptions{Limits: Limits{Free: math.MaxInt64}}); err != nil || fmt.Sprint(refs(t, c)) != "[x/b:1]" {
		t.Errorf("no disk has so much free, and left are %v, %v", refs(t, c), err)
	}
}

func TestGCKeeps(t *testing.T) {
	ctx := t.Context()
	c := mustOpen(t)
	im := newImage(v1.MediaTypeImageLayer, "layer")
	// A blob without an image, as another tool may be about to name it.
	stray := digest.FromString("stray")
	if err := os.WriteFile(c.Dir()+"/blobs/sha256/"+stray.Encoded(), []byte("stray"), 0o644); err != nil {
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

// Pushes, readers and GC without any grace, in many rounds: no push fails, what is named is whole, what
// is read is right.
func TestGCRace(t *testing.T) {
	const rounds = 300
	c := mustOpen(t)
	shared := strings.Repeat("shared", 1000)
	var images []image
	for i := range 4 {
		images = append(images, newImage(v1.MediaTypeImageLayer, shared), newImage(v1.MediaTypeImageLayer, fmt.Sprint(i, shared)))
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var beside sync.WaitGroup
	var served atomic.Int64 // blobs that were read
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
	every(func(int) error { return readAllFound(ctx, c, images, &served) })
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
	if n := served.Load(); n < rounds/10 {
		t.Errorf("only %d blobs were there long enough to be read", n)
	}
}

// An image of several platforms one of which is broken keeps the others.
func TestGCKeepsSiblings(t *testing.T) {
	c := mustOpen(t)
	a, b := newImage(v1.MediaTypeImageLayer, "arm"), newImage(v1.MediaTypeImageLayer, "amd")
	mustPush(t, c, "x/multi:1", indexOf(a, b))
	rot(t, c, a.root().Digest)
	if bad, err := c.Verify(t.Context(), func(Result) {}); err != nil || bad == 0 {
		t.Errorf("%d bad, %v", bad, err)
	}
	if _, err := c.GC(t.Context(), GCOptions{}); err != nil {
		t.Error(err)
	}
	for _, d := range b.blobs {
		if !c.has(d.Digest) {
			t.Errorf("the other platform lost %s", d.MediaType)
		}
	}
}

// One manifest that cannot be read, or that names what cannot be here, does not cost the others their names.
func TestGCUnread(t *testing.T) {
	c := mustOpen(t)
	for _, n := range []string{"a", "b", "c"} {
		mustPush(t, c, "x/"+n+":1", newImage(v1.MediaTypeImageLayer, strings.Repeat(n, 10_000)))
	}
	raw := []byte(`{"schemaVersion":2,"config":{"digest":"blake3:00","size":1}}`)
	odd := v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromBytes(raw), Size: int64(len(raw)),
		Annotations: map[string]string{v1.AnnotationRefName: "x/odd:1", annotationPin: "true"}}
	path, err := c.BlobPath(odd.Digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, raw, 0o444); err != nil {
		t.Fatal(err)
	}
	if err := c.editIndex(t.Context(), func(index *v1.Index) (bool, error) {
		index.Manifests = append(index.Manifests, odd)
		return true, nil
	}); err != nil {
		t.Fatal(err)
	}
	r, err := c.GC(t.Context(), GCOptions{Limits: Limits{Max: 25_000}})
	if err != nil || len(r.Images) != 1 || r.Bytes < 10_000 {
		t.Errorf("removed %+v, %v", r, err)
	}
	// A directory in its place is an error of reading, as of a failing disk.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if r, err := c.GC(t.Context(), GCOptions{Limits: Limits{Max: 1}}); err == nil || !strings.Contains(err.Error(), "x/odd:1") || len(r.Images)+r.Blobs > 0 {
		t.Errorf("removed %+v, %v", r, err)
	}
}

// unseen fails to tell about one file, as a failing disk does.
type unseen struct {
	durable.FS
	name string
}

func (u unseen) Lstat(name string) (fs.FileInfo, error) {
	if name == u.name {
		return nil, &fs.PathError{Op: "lstat", Path: name, Err: syscall.EIO}
	}
	return u.FS.Lstat(name)
}

// A blob whose size nobody can tell does not count as none: there may be no room.
func TestGCUnseen(t *testing.T) {
	c := mustOpen(t)
	im := newImage(v1.MediaTypeImageLayer, strings.Repeat("a", 10_000))
	mustPush(t, c, "x/a:1", im)
	if r, err := c.GC(t.Context(), GCOptions{Limits: Limits{Max: 20_000}}); err != nil || len(r.Images) > 0 {
		t.Fatalf("removed %+v, %v", r, err)
	}
	name, err := blobName(im.blobs[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	c.fs = unseen{c.fs, name}
	if r, err := c.GC(t.Context(), GCOptions{Limits: Limits{Max: 5000}}); !errors.Is(err, syscall.EIO) || len(r.Images) > 0 {
		t.Errorf("removed %+v, %v", r, err)
	}
}

// An image whose blobs all stay for another name is not evicted: nothing would be won.
func TestGCEvictsNothingForNothing(t *testing.T) {
	c := mustOpen(t)
	im := newImage(v1.MediaTypeImageLayer, "layer")
	mustPush(t, c, "x/pinned:1", im)
	mustPush(t, c, "x/also:1", im)
	if err := c.Pin(t.Context(), "x/pinned:1", true); err != nil {
		t.Fatal(err)
	}
	r, err := c.GC(t.Context(), GCOptions{Limits: Limits{Max: 1}})
	if err != nil || len(r.Images) > 0 || !r.Over {
		t.Errorf("removed %+v, %v", r, err)
	}
	// By its digest an image goes under all of its names.
	if r, err := c.Remove(t.Context(), im.root().Digest.String()); err != nil || len(r.Images) != 2 || r.Blobs != 3 {
		t.Errorf("removed %+v, %v", r, err)
	}
}

// readAllFound reads the first blob of each image as the mirror does, where it is there, and counts what it read.
func readAllFound(ctx context.Context, c *Cache, images []image, served *atomic.Int64) error {
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
			served.Add(1)
			if err != nil || digest.FromBytes(b) != d.Digest {
				return fmt.Errorf("read %d bytes of %s: %w", len(b), d.Digest, err)
			}
		}
	}
	return nil
}
