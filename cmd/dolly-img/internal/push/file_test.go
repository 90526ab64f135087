package push

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
	"github.com/dolly-img/dolly-img/ring/errkind"
	"github.com/dolly-img/dolly-img/ring/raw/expand"
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

// A compressed image is not sent as an update, for which it would be expanded again at each of many places. It is refused before
// anything is said about it, or all of it is read. One that is stored as it is, is sent.
func TestUpdateOfExpanded(t *testing.T) {
	image := make([]byte, 1<<20)
	copy(image[1080:], "\x53\xef") // the signature of ext4
	dir := t.TempDir()
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write(image); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"a.raw": image, "a.raw.gz": packed.Bytes()} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, update := range []bool{false, true} {
			said := 0
			in := File{Path: path, Format: expand.Auto, Note: func(error) { said++ }, Measuring: func(int64, int64) { said++ }}
			m := &meta.Transfer{Kind: meta.KindRaw, Output: "device:system", Device: &meta.Device{AnyKind: true}}
			s, err := in.Open(t.Context(), &Push{Update: update}, m)
			kind, _ := errkind.Of(err)
			if refused := update && name == "a.raw.gz"; refused != (kind == "input-update") || !refused && err != nil || refused && said > 0 {
				t.Errorf("%s, update %v: %v, and %d things were said", name, update, err, said)
			}
			if s != nil {
				s.(io.Closer).Close()
			}
		}
	}
}
