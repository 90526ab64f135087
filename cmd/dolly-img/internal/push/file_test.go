package push

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
)

// A log to which a line is added while it is sent is sent as it was, and that is said.
func TestRawGrowing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte("first\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	var notes []string
	in := File{Path: path, Note: func(note error) { notes = append(notes, note.Error()) }}
	m := &meta.Transfer{Kind: meta.KindRaw}
	source, err := in.Open(t.Context(), nil, m)
	if err != nil {
		t.Fatal(err)
	}
	g := source.(*growing)
	defer g.Close()
	g.Sums([]digest.Digest{digest.FromString("first\n")})
	if err := g.Unchanged(context.Background()); err != nil || len(notes) != 0 {
		t.Errorf("%v, %q", err, notes)
	}
	if err := os.WriteFile(path, []byte("first\nsecond\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	want := []string{path + " became longer while it was read: the nodes get the 6 B that it had when it was opened, without the 7 B behind them"}
	if err := g.Unchanged(context.Background()); err != nil || !slices.Equal(notes, want) {
		t.Errorf("%v, %q", err, notes)
	}
	if m.Mode != 0o640 || m.Mtime.IsZero() {
		t.Errorf("mode %o, time %v", m.Mode, m.Mtime)
	}
}
