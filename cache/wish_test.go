package cache

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

func layered(text string) image {
	return newImage(v1.MediaTypeImageLayer, strings.Repeat(text, 10_000/len(text)))
}

// usedBefore sets when images were used, the first one the longest ago.
func usedBefore(t *testing.T, c *Cache, images ...image) {
	t.Helper()
	for i, im := range images {
		if err := usedAt(c.fs, im, time.Now().Add(time.Duration(i-len(images))*time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
}

func mustWish(t *testing.T, c *Cache, owner string, list ...Wish) {
	t.Helper()
	if err := c.SetWishes(t.Context(), owner, list); err != nil {
		t.Fatal(err)
	}
}

// complete returns the images of which all blobs are here.
func complete(c *Cache, images map[string]image) (list []string) {
	for name, im := range images {
		if !slices.ContainsFunc(im.blobs, func(d v1.Descriptor) bool { return c.present(d) != nil }) {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list
}

// What somebody wants stays, with a name and without, whatever the limits. What nobody wants any more is ordinary.
func TestWishesKeep(t *testing.T) {
	c := mustOpen(t)
	old, now, used, pin, plain := layered("old"), layered("now"), layered("used"), layered("pin"), layered("plain")
	all := map[string]image{"old": old, "now": now, "used": used, "pin": pin, "plain": plain}
	mustPush(t, c, "x/a:1", old)
	mustWish(t, c, "head1", Wish{Name: "x/a:1", Digest: old.root().Digest}, Wish{Name: "x/a:1", Digest: now.root().Digest, Keep: 2})
	mustWish(t, c, "head2", Wish{Name: "x/pin:1", Digest: plain.root().Digest, Pin: true}) // the name leads elsewhere
	for name, im := range map[string]image{"x/a:1": now, "x/used:1": used, "x/pin:1": pin} {
		mustPush(t, c, name, im)
	}
	mustPush(t, c, "x/plain:1", plain)
	usedBefore(t, c, old, now, pin, plain, used)

	gc := func(most int64, gone []string, stay ...string) {
		t.Helper()
		r, err := c.GC(t.Context(), GCOptions{Limits: Limits{Max: most}})
		if err != nil || !slices.Equal(r.Images, gone) {
			t.Errorf("gc %d: %+v, %v, want %v gone", most, r, err, gone)
		}
		if got := complete(c, all); !slices.Equal(got, stay) {
			t.Errorf("gc %d: %v stay, want %v", most, got, stay)
		}
	}
	gc(45_000, []string{"x/used:1"}, "now", "old", "pin", "plain") // used last, and the only one that may go
	list, err := c.List()
	if err != nil || len(list) != 4 || list[3].Ref != "" || list[3].Digest != old.root().Digest || list[3].Err != nil || list[3].Kind != KindImage ||
		!slices.Equal(list[3].Wanted, []string{"head1"}) || list[3].Pinned || list[3].Unique < 10_000 {
		t.Errorf("%+v, %v", list, err)
	}
	if n, err := c.Unneeded(); n != 0 || err != nil {
		t.Errorf("%d bytes that no image needs, %v", n, err)
	}
	// Rm takes a name, and not what others want.
	r, err := c.Remove(t.Context(), "x/a:1")
	if err != nil || r.Blobs != 0 || !reflect.DeepEqual(r.Wanted, map[string][]string{"x/a:1": {"head1"}}) {
		t.Errorf("%+v, %v", r, err)
	}
	if got := complete(c, all); len(got) != 4 {
		t.Errorf("after rm: %v", got)
	}
	mustWish(t, c, "head1", Wish{Name: "x/a:1", Digest: old.root().Digest})
	gc(0, nil, "old", "pin", "plain") // what has no name goes as when a name has moved away
	mustWish(t, c, "head2")
	gc(25_000, []string{"x/pin:1"}, "old", "plain")
	mustWish(t, c, "head1")
	gc(0, nil, "plain")
}

// A wish may be for any blob: what is no manifest stays as it is, however large it is, and all else is evicted as ever.
func TestWishForLayer(t *testing.T) {
	c := mustOpen(t)
	large, small := newImage(v1.MediaTypeImageLayer, strings.Repeat("x", maxManifest+1)), layered("small")
	mustPush(t, c, "x/large:1", large)
	mustPush(t, c, "x/small:1", small)
	mustWish(t, c, "head1", Wish{Digest: large.blobs[0].Digest}, Wish{Digest: small.blobs[0].Digest})
	if r, err := c.GC(t.Context(), GCOptions{Limits: Limits{Max: 1}}); err != nil || !slices.Equal(r.Images, []string{"x/large:1", "x/small:1"}) || r.Blobs != 4 {
		t.Errorf("%+v, %v", r, err)
	}
	if err := errors.Join(c.present(large.blobs[0]), c.present(small.blobs[0])); err != nil {
		t.Error(err)
	}
}

// A transfer for which wishes leave no room says who wants what, and nothing is evicted for it.
func TestNoRoomForWishes(t *testing.T) {
	c := mustOpen(t)
	a, b, old := layered("a"), layered("b"), layered("old")
	mustPush(t, c, "x/a:1", old)
	mustWish(t, c, "head1", Wish{Name: "x/a:1", Digest: a.root().Digest}, Wish{Name: "x/a:1", Digest: old.root().Digest})
	mustPush(t, c, "x/a:1", a)
	mustPush(t, c, "x/b:1", b)
	c.SetLimits(Limits{Max: 35_000})
	refused := func(kind, text string) {
		t.Helper()
		_, err := push(c, "x/new:1", newImage(v1.MediaTypeImageLayer, strings.Repeat("new", 8_000)))
		if got, _ := errkind.Of(err); string(got) != kind || !strings.HasSuffix(err.Error(), text) {
			t.Errorf("%q, %v, want %s, %s", got, err, kind, text)
		}
	}
	refused("cache-wanted", "; 2 images with 21.1 kB are wanted: x/a:1 (wanted by head1), x/a:1@sha256:"+old.root().Digest.Encoded()[:12]+" (wanted by head1)")
	if err := c.Pin(t.Context(), "x/b:1", true); err != nil {
		t.Fatal(err)
	}
	refused("cache-pinned", " are pinned or wanted: x/a:1 (wanted by head1), x/b:1, x/a:1@sha256:"+old.root().Digest.Encoded()[:12]+" (wanted by head1)")
	if got := complete(c, map[string]image{"a": a, "b": b, "old": old}); len(got) != 3 {
		t.Errorf("only %v are there", got)
	}
}

// What was wished is read back by the next process, each owner's list on its own.
func TestWishes(t *testing.T) {
	c := mustOpen(t)
	a, b := layered("a").root().Digest, layered("b").root().Digest
	mustWish(t, c, "head1", Wish{"x/b:1", b, false, 0}, Wish{"x/a:1", a, true, 3})
	mustWish(t, c, "head2", Wish{"x/a:1", b, false, 1})
	mustWish(t, c, "head1", Wish{"x/b:1", a, false, 0}, Wish{"x/a:1", a, true, 3})
	mustWish(t, c, "head3", Wish{"x/a:1", b, false, 1})
	mustWish(t, c, "head3")
	want := map[string][]Wish{"head1": {{"x/a:1", a, true, 3}, {"x/b:1", a, false, 0}}, "head2": {{"x/a:1", b, false, 1}}}
	for name, list := range map[string][]Wish{
		"":                       {{"x/a:1", a, false, 0}},
		"a\nb":                   {{"x/a:1", a, false, 0}},
		strings.Repeat("o", 256): {{"x/a:1", a, false, 0}},
		"no digest":              {{"x/a:1", "sha256:ab", false, 0}},
		"no name":                {{"", a, true, 0}},
		"a wrong name":           {{"../a", a, false, 0}},
		"keep":                   {{"x/a:1", a, false, -1}},
		"twice":                  {{"x/a:1", a, false, 0}, {"x/a:1", a, true, 0}},
		Local:                    {{"x/a:1", a, true, 0}}, // the name is not here
	} {
		if err := c.SetWishes(t.Context(), name, list); err == nil || errors.Is(err, ErrNotFound) != (name == Local) {
			t.Errorf("%q: %v", name, err)
		}
	}
	again, err := Open(c.Dir())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := again.Wishes(); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	// If the file is damaged, nobody knows what is wanted, and nothing goes.
	mustPush(t, c, "x/plain:1", layered("plain"))
	file := filepath.Join(c.Dir(), wishesFile)
	bytes, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(bytes) {
		if w, err := decodeWishes(bytes[:n]); err == nil {
			t.Errorf("%q is %v", bytes[:n], w)
		}
	}
	if err := os.WriteFile(file, bytes[:100], 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = c.GC(t.Context(), GCOptions{Limits: Limits{Max: 1}})
	if kind, _ := errkind.Of(err); kind != "cache-wishes" {
		t.Errorf("%v", err)
	}
	if _, err := c.Resolve("x/plain:1"); err != nil {
		t.Error(err)
	}
}

// The wishes of this node are its pins, also those that an earlier version has made, and go with their names.
func TestLocalWishes(t *testing.T) {
	c := mustOpen(t)
	a, b, now := layered("a").root().Digest, layered("b").root().Digest, layered("now")
	mustPush(t, c, "x/a:1", layered("a"))
	mustPush(t, c, "x/b:1", layered("b"))
	if err := c.Pin(t.Context(), "x/a:1", true); err != nil {
		t.Fatal(err)
	}
	local := func(want ...Wish) {
		t.Helper()
		if got, err := c.Wishes(); err != nil || !slices.Equal(got[Local], want) {
			t.Errorf("%v, %v, want %v", got, err, want)
		}
	}
	local(Wish{"x/a:1", a, true, 0})
	mustWish(t, c, Local, Wish{"x/b:1", b, true, 0})
	local(Wish{"x/b:1", b, true, 0})
	if err := c.SetWishes(t.Context(), Local, []Wish{{"x/a:1", b, true, 0}}); !errors.Is(err, ErrNotFound) {
		t.Errorf("pin of a digest that the name does not lead to: %v", err)
	}
	if err := c.SetWishes(t.Context(), Local, []Wish{{"x/b:1", b, true, 0}, {"x/b:1", a, true, 0}}); !errors.Is(err, ErrNotFound) {
		t.Errorf("pins of two digests of a name: %v", err)
	}
	local(Wish{"x/b:1", b, true, 0})
	mustPush(t, c, "x/b:1", now)
	local(Wish{"x/b:1", now.root().Digest, true, 0})
}

// Of two warmers, the first keeps its name as long as it wants it. A sender moves every name, and the warmer moves it back.
func TestNameOwner(t *testing.T) {
	c := mustOpen(t)
	a, b := layered("a"), layered("b")
	move := func(owner string, im image) error {
		_, err := pushWith(c, "x/a:1", im, TransferOptions{Owner: owner})
		return err
	}
	conflict := func(err error) bool {
		kind, _ := errkind.Of(err)
		return kind == "cache-conflict" && strings.HasSuffix(err.Error(), fmt.Sprintf("the name x/a:1 is of the warmer head1, and leads to %s", a.root().Digest))
	}
	leads := func(what string, im image) {
		t.Helper()
		if d, err := c.Resolve("x/a:1"); err != nil || d.Digest != im.root().Digest {
			t.Errorf("%s: %v, %v", what, d.Digest, err)
		}
	}
	mustWish(t, c, "head1", Wish{Name: "x/a:1", Digest: a.root().Digest})
	mustWish(t, c, "head2", Wish{Name: "x/a:1", Digest: b.root().Digest})
	for i, step := range []struct {
		owner    string
		im       image
		conflict bool
	}{
		{"", b, false}, {"head1", a, false}, {"head2", b, true}, {"head2", a, false}, {"head2", b, true},
		{"", b, false}, {"head1", a, false}, {"head2", b, true}, {"head1", b, false}, {"head1", a, false},
	} {
		h := askOne(t, c, "x/a:1", at(step.im))
		if told := step.owner != "" && h.NameOwner != "" && h.NameOwner != step.owner && h.Named != h.Digest; told != step.conflict {
			t.Errorf("step %d: before it the cache says %+v", i, h)
		}
		err := move(step.owner, step.im)
		if step.conflict != conflict(err) || !step.conflict && err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		if step.conflict {
			leads(fmt.Sprint("step ", i), a)
		} else {
			leads(fmt.Sprint("step ", i), step.im)
		}
	}
	// The decision falls under the lock: what was free when it was offered may have an owner since.
	if err := move("", b); err != nil {
		t.Fatal(err)
	}
	other := layered("other")
	late := c.Transfer("x/a:1", TransferOptions{Owner: "head2"})
	defer late.Close()
	mustPush(t, c, "x/other:1", other)
	if _, _, err := late.Offer(t.Context(), other.blobs); err != nil {
		t.Fatal(err)
	}
	if _, err := late.Prepare(t.Context(), other.blobs); err != nil {
		t.Fatal(err)
	}
	if err := move("head1", a); err != nil {
		t.Fatal(err)
	}
	if err := late.Publish(t.Context()); !conflict(err) {
		t.Errorf("%v", err)
	}
	leads("late", a)
	mustWish(t, c, "head1")
	if h := askOne(t, c, "x/a:1", at(b)); h.NameOwner != "" {
		t.Errorf("nothing is wanted under it, and the cache says %+v", h)
	}
	if err := move("head2", b); err != nil {
		t.Error(err)
	}
	leads("free", b)
}

// testdata/pinned is a cache that the version before wishes has made, with push --pin. Its pin is a wish of this
// node, and stays one whatever others want.
func TestPinsOfEarlierVersions(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	if err := os.CopyFS(dir, os.DirFS("testdata/pinned")); err != nil {
		t.Fatal(err)
	}
	c, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	pinned, plain := digest.Digest("sha256:f565f87a1272c3574afc95e9d1ba6096b0521322220dc366e19855fd05d1ea52"), "localhost/plain:1"
	mustWish(t, c, "head1", Wish{Name: "localhost/other:1", Digest: pinned})
	mustWish(t, c, "head1")
	want := map[string][]Wish{Local: {{"localhost/pinned:1", pinned, true, 0}}}
	if got, err := c.Wishes(); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	if r, err := c.GC(t.Context(), GCOptions{Limits: Limits{Max: 1}}); err != nil || !slices.Equal(r.Images, []string{plain}) || !r.Over {
		t.Errorf("%+v, %v", r, err)
	}
	if bad, err := c.Verify(t.Context(), func(Result) {}); bad > 0 || err != nil {
		t.Errorf("%d bad, %v", bad, err)
	}
}

// No owner leaves another one without room for its wishes.
func TestWishBounds(t *testing.T) {
	c := mustOpen(t)
	list := func(n int) (list []Wish) {
		for i := range n {
			list = append(list, Wish{Name: fmt.Sprintf("x/%s:%d", strings.Repeat("a", 450), i), Digest: digest.FromString(fmt.Sprint(i))})
		}
		return list
	}
	for i := range maxOwners {
		mustWish(t, c, fmt.Sprint("head", i), list(1)...)
	}
	mustWish(t, c, "head0", list(900)...)
	if err := c.SetWishes(t.Context(), "head0", list(1024)); err == nil || !strings.Contains(err.Error(), "524288 are the most") {
		t.Errorf("too many wishes: %v", err)
	}
	if err := c.SetWishes(t.Context(), "more", list(1)); err == nil || !strings.Contains(err.Error(), "the owner 17 of wishes") {
		t.Errorf("too many owners: %v", err)
	}
	if err := errors.Join(c.SetWishes(t.Context(), "head0", nil), c.SetWishes(t.Context(), "more", list(1))); err != nil {
		t.Errorf("in place of another one: %v", err)
	}
	if w, err := c.Wishes(); err != nil || len(w) != maxOwners || len(w["head1"]) != 1 {
		t.Errorf("%d owners, %v", len(w), err)
	}
}

// A warmer that sends what a name leads to already has the name from then on, unless another warmer has it, and nothing has moved.
func TestOwnerOfNameInPlace(t *testing.T) {
	c := mustOpen(t)
	a, b := layered("a"), layered("b")
	mustPush(t, c, "x/a:1", a)
	for _, owner := range []string{"head1", "head2", ""} {
		mustWish(t, c, "head1", Wish{Name: "x/a:1", Digest: at(a)})
		tr := c.Transfer("x/a:1", TransferOptions{Owner: owner})
		if _, _, err := tr.Offer(t.Context(), a.blobs); err != nil {
			t.Fatal(err)
		}
		inPlace, err := tr.Prepare(t.Context(), a.blobs)
		if err := errors.Join(err, tr.Publish(t.Context()), tr.Close()); err != nil || !inPlace {
			t.Fatalf("%s: in place %v, %v", owner, inPlace, err)
		}
		if d, err := c.Resolve("x/a:1"); err != nil || ownerOf(d) != "head1" || d.Digest != at(a) {
			t.Errorf("after %q: %+v, %v", owner, d, err)
		}
	}
	if _, err := pushWith(c, "x/a:1", b, TransferOptions{Owner: "head2"}); err == nil {
		t.Error("another warmer has moved it")
	}
}
