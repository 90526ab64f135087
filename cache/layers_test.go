package cache

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// A layer that was unpacked once is known in the next process; what is torn is not.
func TestLayersAreRemembered(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	c, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	blob, diff, other := digest.FromString("blob"), digest.FromString("diff"), digest.FromString("other")
	if c.LayerChecked(blob, diff) {
		t.Error("known before it was recorded")
	}
	c.RecordLayer(blob, diff)
	c.RecordLayer("sha256:../../../escaped", diff)
	if c, err = Open(dir); err != nil {
		t.Fatal(err)
	}
	if !c.LayerChecked(blob, diff) || c.LayerChecked(blob, other) || c.LayerChecked(diff, blob) {
		t.Error("what was recorded is not what is known")
	}
	path := filepath.Join(dir, "layers", flat(blob))
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range whole {
		if err := os.WriteFile(path, whole[:n], 0o644); err != nil {
			t.Fatal(err)
		}
		if c.LayerChecked(blob, diff) {
			t.Errorf("known from %d of %d bytes", n, len(whole))
		}
	}
	if names, err := os.ReadDir(filepath.Join(dir, "layers")); err != nil || len(names) != 1 {
		t.Errorf("%v, %v", names, err)
	}
}

// They do not become ever more: the older half goes.
func TestLayersAreBounded(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	c, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	diff := digest.FromString("diff")
	old := time.Now().Add(-time.Hour)
	for i := range maxLayers {
		blob := digest.FromString(fmt.Sprint(i))
		path := filepath.Join(dir, "layers", flat(blob))
		if err := os.WriteFile(path, []byte(diff.String()+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			if err := os.Chtimes(path, old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
	c.RecordLayer(digest.FromString("new"), diff)
	names, err := os.ReadDir(filepath.Join(dir, "layers"))
	if err != nil || len(names) != maxLayers/2+1 {
		t.Errorf("%d facts are kept, %v", len(names), err)
	}
	if !c.LayerChecked(digest.FromString("1"), diff) || c.LayerChecked(digest.FromString("0"), diff) || !c.LayerChecked(digest.FromString("new"), diff) {
		t.Error("not the older half went")
	}
}
