package raw

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"
	"time"
)

// partsOf splits content into files of these sizes.
func partsOf(t *testing.T, content []byte, sizes ...int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	for n, size := range sizes {
		if err := os.WriteFile(PartName(path, n), content[:size], 0o640); err != nil {
			t.Fatal(err)
		}
		content = content[size:]
	}
	if len(content) > 0 {
		t.Fatalf("%d bytes are left", len(content))
	}
	return path
}

// Parts are read as one file, at any offset, with empty parts among them.
func TestParts(t *testing.T) {
	content := make([]byte, 100_000)
	rand.NewChaCha8([32]byte{}).Read(content)
	s, err := OpenParts(partsOf(t, content, 0, 1, 40_000, 0, 59_999, 0))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	blobs, err := s.Blobs(t.Context())
	if err != nil || len(blobs) != 1 || blobs[0].Size != 100_000 || s.Mode() != 0o640 {
		t.Fatalf("%+v, %v, mode %o", blobs, err, s.Mode())
	}
	if err := iotest.TestReader(io.NewSectionReader(s, 0, s.Size()), content); err != nil {
		t.Error(err)
	}
	for _, off := range []int64{0, 1, 39_999, 40_001, 99_999, 100_000} {
		r, err := s.Open(t.Context(), blobs[0], off)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, content[off:]) {
			t.Errorf("from %d: %d bytes, %v", off, len(got), err)
		}
		r.Close()
	}
	if _, err := s.Open(t.Context(), blobs[0], 100_001); err == nil {
		t.Error("an offset behind the end")
	}
	if err := s.Unchanged(t.Context()); err != nil {
		t.Error(err)
	}
}

// A part that is changed, made shorter or added meanwhile is found, and what is no file is refused.
func TestPartsChanged(t *testing.T) {
	for name, change := range map[string]func(path string) error{
		"changed": func(path string) error { return os.Chtimes(PartName(path, 1), time.Time{}, time.Unix(1, 0)) },
		"longer":  func(path string) error { return os.Truncate(PartName(path, 0), 9) },
		"shorter": func(path string) error { return os.Truncate(PartName(path, 1), 2) },
		"added":   func(path string) error { return os.WriteFile(PartName(path, 2), nil, 0o600) },
		"removed": func(path string) error { return os.Remove(PartName(path, 1)) },
	} {
		path := partsOf(t, []byte("12345678"), 4, 4)
		s, err := OpenParts(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := change(path); err != nil {
			t.Fatal(err)
		}
		blobs, _ := s.Blobs(t.Context())
		r, err := s.Open(t.Context(), blobs[0], 0)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); (err == nil) != (name != "shorter") || err == nil && len(got) != 8 {
			t.Errorf("%s: read %q, %v", name, got, err)
		}
		if err := s.Unchanged(t.Context()); err == nil {
			t.Errorf("%s: not noticed", name)
		}
		s.Close()
	}
	dir := filepath.Join(t.TempDir(), "d")
	if err := os.Mkdir(PartName(dir, 0), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(t.TempDir(), "none"), dir} {
		if s, err := OpenParts(path); err == nil {
			s.Close()
			t.Errorf("%s was opened", path)
		}
	}
}
