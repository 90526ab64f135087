package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/cache/durable"
)

// askOne asks about one image.
func askOne(t *testing.T, c *Cache, name string, d digest.Digest) Holding {
	t.Helper()
	h, err := c.Holds(t.Context(), []Asked{{name, d}}, false)
	if err != nil || len(h.Images) != 1 {
		t.Fatalf("%+v, %v", h, err)
	}
	return h.Images[0]
}

// wantHolding fails unless a question about an image under a name is answered so.
func wantHolding(t *testing.T, c *Cache, what, name string, im image, want Holding) {
	t.Helper()
	want.Name, want.Digest = name, im.root().Digest
	if got := askOne(t, c, name, want.Digest); !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\n%+v, want\n%+v", what, got, want)
	}
}

// sizeOf is how many bytes the blobs of an image have.
func sizeOf(im image) (n int64) {
	for _, d := range im.blobs {
		n += d.Size
	}
	return n
}

func at(im image) digest.Digest { return im.root().Digest }

// What the cache says that it holds is so at this moment, whatever was asked before, and asking needs no lock and leaves
// nothing behind.
func TestHolds(t *testing.T) {
	c := mustOpen(t)
	a, b, sif, none := layered("a"), layered("b"), newImage(mediaTypeSIFLayer, "a SIF"), layered("none")
	mustPush(t, c, "x/a:1", a)
	mustPush(t, c, "x/sif:1", sif)
	mustPush(t, c, "x/both:1", indexOf(a, b))
	unlock, err := c.lockIndex(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { unlock() }()
	path := func(d digest.Digest) string { name, _ := blobName(d); return filepath.Join(c.Dir(), name) }
	for range 2 { // the second answer comes from what the first one has found out
		wantHolding(t, c, "held", "x/a:1", a, Holding{State: HeldAll, Named: at(a), Bytes: sizeOf(a)})
		wantHolding(t, c, "below an index", "x/a:1", b, Holding{State: HeldAll, Named: at(a), Bytes: sizeOf(b)})
		wantHolding(t, c, "an index", "x/both:1", indexOf(a, b), Holding{State: HeldAll, Named: at(indexOf(a, b)), Bytes: sizeOf(indexOf(a, b))})
		wantHolding(t, c, "no name", "", sif, Holding{State: HeldAll, Bytes: sizeOf(sif)})
		wantHolding(t, c, "nothing", "x/none:1", none, Holding{State: HeldNone, Bytes: -1, Lacks: -1, Why: "it is not here"})
	}
	if got := askOne(t, c, "x/none:1", ""); got.State != HeldNone || got.Why != "no such name" {
		t.Errorf("%+v", got)
	}
	if got := askOne(t, c, "x/sif:1", ""); got.State != HeldAll || got.Digest != at(sif) || got.Named != at(sif) {
		t.Errorf("%+v", got)
	}
	layer := b.blobs[0]
	bytes := b.bytes[layer.Digest]
	if err := os.Remove(path(layer.Digest)); err != nil {
		t.Fatal(err)
	}
	lacks := fmt.Sprint("1 of its blobs with ", "10.0 kB", " are not here")
	wantHolding(t, c, "lacks a layer", "", b, Holding{State: HeldPart, Bytes: sizeOf(b), Lacks: layer.Size, Why: lacks})
	// Another file with the same length is not the one that was verified.
	if err := os.WriteFile(path(layer.Digest), []byte(strings.Repeat("x", len(bytes))), 0o444); err != nil {
		t.Fatal(err)
	}
	doubt := "of 1 of its blobs nobody knows whether they are right; a push or dolly-img cache verify reads them"
	wantHolding(t, c, "was replaced", "", b, Holding{State: HeldPart, Bytes: sizeOf(b), Why: doubt})
	unlock()
	if _, err := c.Verify(t.Context(), func(Result) {}); err != nil {
		t.Fatal(err)
	}
	wantHolding(t, c, "was in quarantine", "", b, Holding{State: HeldPart, Bytes: sizeOf(b), Lacks: layer.Size, Why: lacks})
	mustPush(t, c, "x/b:1", b)
	wantHolding(t, c, "came again", "x/b:1", b, Holding{State: HeldAll, Named: at(b), Bytes: sizeOf(b)})
	c.distrust(layer.Digest) // as Verify does of what it cannot read
	wantHolding(t, c, "is not trusted", "x/b:1", b, Holding{State: HeldPart, Named: at(b), Bytes: sizeOf(b), Why: doubt})
	mustPush(t, c, "x/b:1", b)
	for _, dir := range []string{"leases", "holds", "ingest"} {
		if left := names(t, filepath.Join(c.Dir(), dir)); len(left) > 0 {
			t.Errorf("left in %s: %v", dir, left)
		}
	}
	unlock = func() {}
}

// Who wants an image is told with it, and what a warmer has done to a name.
func TestHoldsOwners(t *testing.T) {
	c := mustOpen(t)
	a, b, sif, none := layered("a"), layered("b"), newImage(mediaTypeSIFLayer, "a SIF"), layered("none")
	mustPush(t, c, "x/a:1", a)
	mustPush(t, c, "x/sif:1", sif)
	mustPush(t, c, "x/both:1", indexOf(a, b))
	mustPush(t, c, "x/b:1", b)

	mustWish(t, c, "head1", Wish{Name: "x/a:1", Digest: at(sif)}, Wish{Name: "x/none:1", Digest: at(none)})
	if _, err := pushWith(c, "x/a:1", sif, TransferOptions{Owner: "head1"}); err != nil {
		t.Fatal(err)
	}
	wantHolding(t, c, "whose name a warmer has moved", "x/a:1", a, Holding{State: HeldAll, Named: at(sif), NameOwner: "head1", Bytes: sizeOf(a), Why: "the warmer head1 has set the name"})
	wantHolding(t, c, "wanted", "x/sif:1", sif, Holding{State: HeldAll, Named: at(sif), Bytes: sizeOf(sif), Owners: []string{"head1"}})
	if err := c.Pin(t.Context(), "x/b:1", true); err != nil {
		t.Fatal(err)
	}
	mustPush(t, c, "x/b:2", b)
	wantHolding(t, c, "pinned", "x/b:1", b, Holding{State: HeldAll, Named: at(b), Bytes: sizeOf(b), Owners: []string{Local}})
	wantHolding(t, c, "pinned under another name", "x/b:2", b, Holding{State: HeldAll, Named: at(b), Bytes: sizeOf(b)})
	wantHolding(t, c, "pinned under some name", "", b, Holding{State: HeldAll, Bytes: sizeOf(b), Owners: []string{Local}})
	h, err := c.Holds(t.Context(), []Asked{{"x/b:1", at(b)}}, true)
	var refs []string
	for _, i := range h.Images {
		refs = append(refs, i.Name)
		if i.State != HeldAll || i.Named != i.Digest {
			t.Errorf("%+v", i)
		}
	}
	if got := strings.Join(refs, " "); got != "x/b:1 x/sif:1 x/both:1 x/a:1 x/b:2" || h.Wanted != sizeOf(sif)+sizeOf(b) || h.Free <= 0 || err != nil {
		t.Errorf("%s, %+v, %v", got, h, err)
	}
	c.SetLimits(Limits{Max: sizeOf(sif) + sizeOf(b) + 1000})
	if h, err := c.Holds(t.Context(), nil, false); h.Free != 1000 || h.Limits.Max == 0 || err != nil {
		t.Errorf("%+v, %v", h, err)
	}
}

// Where an answer says that there is no room for what an image lacks, a transfer finds none either: first bytes that are kept need none, and a
// hold of an image that nobody pulls ends for a transfer.
func TestHoldsRoom(t *testing.T) {
	c := mustOpen(t)
	b, served := layered("b"), layered("served")
	mustPush(t, c, "x/b:1", b)
	mustPush(t, c, "x/served:1", served)
	hold, err := c.Hold(t.Context(), served.root())
	if err != nil {
		t.Fatal(err)
	}
	defer hold.Release()
	layer := b.blobs[0]
	name, _ := blobName(layer.Digest)
	if err := os.Remove(filepath.Join(c.Dir(), name)); err != nil {
		t.Fatal(err)
	}
	const kept = 4000
	if err := os.WriteFile(filepath.Join(c.Dir(), "kept", flat(layer.Digest)), b.bytes[layer.Digest][:kept], 0o600); err != nil {
		t.Fatal(err)
	}
	c.SetLimits(Limits{Max: sizeOf(b)})
	h, err := c.Holds(t.Context(), []Asked{{"x/b:1", at(b)}}, false)
	if err != nil || h.Images[0].Lacks != layer.Size-kept || h.Free < h.Images[0].Lacks {
		t.Errorf("%+v, %v", h, err)
	}
	tr := c.Transfer("x/b:1", TransferOptions{})
	defer tr.Close()
	if held, _, err := tr.Offer(t.Context(), b.blobs); err != nil || lacking(b.blobs, held) != h.Images[0].Lacks {
		t.Errorf("%v, %v", held, err)
	}
}

// opens counts which files are opened.
type opens struct {
	durable.FS
	files map[string]int
}

func (o opens) OpenFile(name string, flag int, perm fs.FileMode) (durable.File, error) {
	o.files[name]++
	return o.FS.OpenFile(name, flag, perm)
}

// A question that repeats a digest costs no more than one that does not, and what was found to be no manifest is not read again.
func TestHoldsRepeated(t *testing.T) {
	c := mustOpen(t)
	a := layered("a")
	mustPush(t, c, "x/a:1", a)
	files := map[string]int{}
	c.fs = opens{c.fs, files}
	var asked []Asked
	for range 50 {
		asked = append(asked, Asked{"", a.blobs[0].Digest}, Asked{"", a.root().Digest})
	}
	for range 2 {
		h, err := c.Holds(t.Context(), asked, false)
		if err != nil || h.Images[98].State != HeldPart || h.Images[98].Bytes != -1 || h.Images[99].State != HeldAll {
			t.Fatalf("%+v, %v", h, err)
		}
	}
	for _, d := range []v1.Descriptor{a.blobs[0], a.root()} {
		if name, _ := blobName(d.Digest); files[name] != 1 {
			t.Errorf("%s was opened %d times", name, files[name])
		}
	}
}

// Of several images with one name, which another tool may have made, the name leads to the one that Resolve says.
func TestHoldsTwins(t *testing.T) {
	c := mustOpen(t)
	mustPush(t, c, "x/a:1", layered("a"))
	mustPush(t, c, "x/b:1", layered("b"))
	err := c.editIndex(t.Context(), func(index *v1.Index) (bool, error) {
		index.Manifests[1].Annotations[v1.AnnotationRefName] = "x/a:1"
		return true, nil
	})
	d, rerr := c.Resolve("x/a:1")
	if err := errors.Join(err, rerr); err != nil {
		t.Fatal(err)
	}
	if h := askOne(t, c, "x/a:1", ""); h.Named != d.Digest || h.State != HeldAll {
		t.Errorf("%+v, but the name leads to %s", h, d.Digest)
	}
}

// BenchmarkHolds asks about 20 images with 7 blobs each, of which nothing has changed since the last question: a round of
// 1000 nodes is 1000 of these. With "each second" every question is the first one of its second.
func BenchmarkHolds(b *testing.B) {
	for what, limits := range map[string]Limits{"no limits": {}, "limits": {Max: 1 << 40}} {
		b.Run(what, func(b *testing.B) { benchmarkHolds(b, limits, false) })
		b.Run(what+", each second", func(b *testing.B) { benchmarkHolds(b, limits, true) })
	}
}

func benchmarkHolds(b *testing.B, limits Limits, forget bool) {
	c, err := Open(filepath.Join(b.TempDir(), "cache"))
	if err != nil {
		b.Fatal(err)
	}
	var asked []Asked
	var wishes []Wish
	for i := range 20 {
		name := fmt.Sprintf("registry.example/team/image%d:1", i)
		im := indexOf(layered(fmt.Sprint("a", i)), layered(fmt.Sprint("b", i)))
		if _, err := push(c, name, im); err != nil {
			b.Fatal(err)
		}
		asked = append(asked, Asked{name, im.root().Digest})
		wishes = append(wishes, Wish{Name: name, Digest: im.root().Digest})
	}
	if err := c.SetWishes(b.Context(), "head1", wishes); err != nil {
		b.Fatal(err)
	}
	c.SetLimits(limits)
	for _, place := range places {
		at := time.Now().Add(-time.Hour)
		_ = os.Chtimes(filepath.Join(c.Dir(), place), at, at)
	}
	for b.Loop() {
		if forget {
			c.known.at = time.Time{}
		}
		h, err := c.Holds(b.Context(), asked, false)
		if err != nil {
			b.Fatal(err)
		}
		for _, i := range h.Images {
			if i.State != HeldAll || i.Named != i.Digest {
				b.Fatalf("%+v", i)
			}
		}
	}
}
