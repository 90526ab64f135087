package cache

import (
	"errors"
	"fmt"
	"math"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

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

// What a name has named before goes with the push that moves it, unless it came lately or another
// image needs it.
func TestMovedName(t *testing.T) {
	c := mustOpen(t)
	shared := v1.MediaTypeImageLayer
	first, second := newImage(shared, "of the first"), newImage(shared, "of the second")
	mustPush(t, c, "x/app:1", first)
	mustPush(t, c, "x/same:1", second)
	mustPush(t, c, "x/app:1", second)
	if !c.has(first.blobs[0].Digest) {
		t.Error("a layer that came lately is gone")
	}
	c.idle = 0
	mustPush(t, c, "x/app:1", first)
	mustPush(t, c, "x/app:1", second)
	if c.has(first.blobs[0].Digest) || c.has(first.root().Digest) || !c.has(second.blobs[0].Digest) {
		t.Errorf("left are %v", names(t, c.Dir()+"/blobs/sha256"))
	}
	if got := fmt.Sprint(refs(t, c)); got != "[x/app:1 x/same:1]" {
		t.Errorf("have %s", got)
	}
}

// What a name has named before makes room for the next image at once where there are limits; what
// another tool has put here and not named yet stays.
func TestMovedNameMakesRoom(t *testing.T) {
	c := mustOpen(t)
	c.SetLimits(Limits{Max: 25_000})
	layer := func(b string) image { return newImage(v1.MediaTypeImageLayer, strings.Repeat(b, 10_000)) }
	foreign := digest.FromString("another tool's")
	if err := os.WriteFile(c.Dir()+"/blobs/sha256/"+foreign.Encoded(), []byte("another tool's"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, b := range []string{"1", "2", "3", "4"} {
		mustPush(t, c, "x/app:1", layer(b))
	}
	if got := fmt.Sprint(refs(t, c)); got != "[x/app:1]" {
		t.Errorf("have %s", got)
	}
	if !c.has(foreign) {
		t.Error("what another tool is about to name is gone")
	}
	r, err := c.GC(t.Context(), GCOptions{Grace: time.Hour})
	if err != nil || r.Waits < 14 || r.Blobs > 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

// What cannot fit costs nobody his image, and nothing goes before a blob comes.
func TestOfferEvictsNothing(t *testing.T) {
	c := mustOpen(t)
	for _, n := range []string{"a", "b", "c"} {
		mustPush(t, c, "x/"+n+":1", newImage(v1.MediaTypeImageLayer, strings.Repeat(n, 10_000)))
	}
	c.SetLimits(Limits{Max: 35_000})
	big := v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: digest.FromString("big")}
	for _, size := range []int64{40_000, 1 << 50, math.MaxInt64} {
		big.Size = size
		tr := c.Transfer("x/big:1", TransferOptions{})
		if _, _, err := tr.Offer(t.Context(), []v1.Descriptor{big, {Digest: digest.FromString("other"), Size: math.MaxInt64}}); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%d bytes: %v", size, err)
		}
		tr.Close()
	}
	big.Size = 20_000
	tr := c.Transfer("x/big:1", TransferOptions{})
	defer tr.Close()
	held, free, err := tr.Offer(t.Context(), []v1.Descriptor{big})
	if err != nil || held[0] != 0 || free < 34_000 || free > 35_000 {
		t.Errorf("held %v, free %d, %v", held, free, err)
	}
	if got := fmt.Sprint(refs(t, c)); got != "[x/a:1 x/b:1 x/c:1]" {
		t.Errorf("have %s", got)
	}
	w, err := tr.Begin(t.Context(), big, 0)
	if err != nil {
		t.Fatal(err)
	}
	if got := len(refs(t, c)); got != 1 {
		t.Errorf("%d images when the blob comes", got)
	}
	if err := w.Abort(0); err != nil {
		t.Error(err)
	}
}

// Two transfers that come at once make room for themselves only; the last one sees to the limit.
func TestLimitAfterTwo(t *testing.T) {
	c := mustOpen(t)
	c.SetLimits(Limits{Max: 25_000})
	var list []*Transfer
	var images []image
	for _, n := range []string{"a", "b"} {
		im := newImage(v1.MediaTypeImageLayer, strings.Repeat(n, 20_000))
		tr := c.Transfer("x/"+n+":1", TransferOptions{})
		defer tr.Close()
		if _, _, err := tr.Offer(t.Context(), im.blobs); err != nil {
			t.Fatal(err)
		}
		list, images = append(list, tr), append(images, im)
	}
	for i, tr := range list {
		for _, d := range images[i].blobs {
			w, err := tr.Begin(t.Context(), d, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(images[i].bytes[d.Digest]); err != nil {
				t.Fatal(err)
			}
			if err := w.Commit(t.Context(), d); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, tr := range list {
		if _, err := tr.Prepare(t.Context(), tr.blobs); err != nil {
			t.Fatal(err)
		}
		if err := tr.Publish(t.Context()); err != nil {
			t.Fatal(err)
		}
		tr.Close()
	}
	mustPush(t, c, "x/c:1", newImage(v1.MediaTypeImageLayer, "small"))
	g, err := c.newCollector(GCOptions{})
	if err != nil || g.total > 25_000 {
		t.Errorf("%d bytes, %v", g.total, err)
	}
}

// What has no room is refused with units, and where there is none.
func TestNoRoom(t *testing.T) {
	c := mustOpen(t)
	tr := c.Transfer("localhost/a:latest", TransferOptions{})
	defer tr.Close()
	_, _, err := tr.Offer(t.Context(), []v1.Descriptor{{Digest: digest.FromString("big"), Size: 7 << 60}})
	want := regexp.MustCompile(`^cache ` + regexp.QuoteMeta(c.Dir()) + `: needs 8\.07 EB, \d\S* [kMGT]B are free there: no space left on device$`)
	if !errors.Is(err, syscall.ENOSPC) || !want.MatchString(err.Error()) {
		t.Errorf("%v, want %s", err, want)
	}
}

// Where images are pinned, who lacks room is told which ones keep it.
func TestNoRoomForPins(t *testing.T) {
	c := mustOpen(t)
	for _, name := range []string{"a", "b", "c", "d", "other"} {
		mustPush(t, c, "x/"+name+":1", newImage(v1.MediaTypeImageLayer, strings.Repeat(name, 10_000/len(name))))
	}
	for _, name := range []string{"d", "a", "c", "b"} {
		if err := c.Pin(t.Context(), "x/"+name+":1", true); err != nil {
			t.Fatal(err)
		}
	}
	c.SetLimits(Limits{Max: 55_000})
	offer := func(ref string, size int64) error {
		tr := c.Transfer(ref, TransferOptions{})
		defer tr.Close()
		_, _, err := tr.Offer(t.Context(), []v1.Descriptor{{Digest: digest.FromString("new"), Size: size}})
		return err
	}
	for _, tt := range []struct {
		ref         string
		size        int64
		kind, wants string
	}{
		{"x/new:1", 10_000, "", ""},
		{"x/new:1", 20_000, "cache-pinned", `; 4 images with 4\d\.\d kB are pinned: x/a:1, x/b:1, x/c:1 and 1 more$`},
		{"x/new:1", 90_000, "cache-full", `; 4 images with 4\d\.\d kB are pinned: `},
		{"x/a:1", 20_000, "cache-pinned", `; 3 images with 3\d\.\d kB are pinned: x/b:1, x/c:1, x/d:1$`}, // the other is replaced
	} {
		err := offer(tt.ref, tt.size)
		kind, _ := errkind.Of(err)
		if string(kind) != tt.kind || err != nil && !regexp.MustCompile(tt.wants).MatchString(err.Error()) {
			t.Errorf("%d bytes for %s: %q, %v", tt.size, tt.ref, kind, err)
		}
	}
}
