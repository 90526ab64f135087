package warmer

import (
	"path/filepath"
	"slices"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/cache/warm"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/cachedir"
	"github.com/dolly-img/dolly-img/ring/identity"
)

// In the own cache a digest that another one has taken the place of loses its name when it is not wanted any more, and its blobs stay for their grace. What is
// taken out of the list stays.
func TestKeepLetsGo(t *testing.T) {
	keys, dir := filepath.Join(t.TempDir(), "keys"), filepath.Join(t.TempDir(), "cache")
	if err := identity.Init(keys, identity.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	c, err := cachedir.Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	f := newFakeRegistry(t)
	old, now, other := f.image("linux/amd64", "old"), f.image("linux/amd64", "new"), f.image("linux/amd64", "other")
	f.layout(t, dir, map[string]v1.Descriptor{
		"reg.example/torch@" + old.Digest.String(): old, "reg.example/torch@" + now.Digest.String(): now,
		"reg.example/other@" + other.Digest.String(): other, "reg.example/mine:1": other,
	})
	e, err := New(Config{Keys: keys, Cache: dir})
	if err != nil {
		t.Fatal(err)
	}
	wish := func(name string, d v1.Descriptor) warm.Wish { return warm.Wish{Name: name, Digest: d.Digest, Keep: 1} }
	keep := func(wishes ...warm.Wish) (names []string) {
		t.Helper()
		if err := e.Keep(t.Context(), wishes); err != nil {
			t.Fatal(err)
		}
		if names, err = c.Names(); err != nil {
			t.Fatal(err)
		}
		return names
	}
	torch := "reg.example/torch:1"
	if names := keep(wish(torch, old), wish(torch, now), wish("reg.example/other:1", other)); len(names) != 4 {
		t.Errorf("all are wanted: %q", names)
	}
	names := keep(wish(torch, now))
	if gone := "reg.example/torch@" + old.Digest.String(); len(names) != 3 || slices.Contains(names, gone) || !slices.Contains(names, "reg.example/mine:1") {
		t.Errorf("another digest has taken the place of one: %q", names)
	}
	if _, err := c.BlobPath(old.Digest); err != nil {
		t.Errorf("its blobs are gone at once: %v", err)
	}
	if wishes, err := c.Wishes(); err != nil || len(wishes["warmer"]) != 1 {
		t.Errorf("%v, %v", wishes, err)
	}
	if names := keep(); len(names) != 3 {
		t.Errorf("nothing is listed: %q", names)
	}
}
