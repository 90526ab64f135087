package node

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/ring/raw"
)

// When a daemon starts, it keeps the part that the next push goes on from, and removes what was about to get its name
// when the daemon before was killed.
func TestCleanParts(t *testing.T) {
	store, err := cache.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	kept, published := raw.PartPath(filepath.Join(dir, "kept")), raw.PartPath(filepath.Join(dir, "published"))
	aside := filepath.Join(dir, ".dolly-img-part-ABC")
	for _, file := range []string{kept, aside} {
		if err := os.WriteFile(file, []byte("bytes"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, part := range []string{kept, published} {
		if err := store.RecordPart(part); err != nil {
			t.Fatal(err)
		}
	}
	cleanParts(store, slog.New(slog.DiscardHandler))
	if _, err := os.Lstat(kept); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(aside); !os.IsNotExist(err) {
		t.Errorf("what was set aside is still there: %v", err)
	}
	if paths, _, err := store.Parts(); err != nil || len(paths) != 1 || paths[0] != kept {
		t.Errorf("the journal has %v, %v", paths, err)
	}
}
