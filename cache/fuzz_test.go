package cache

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
)

// corpus fails a target whose committed corpus is gone.
func corpus(f *testing.F) {
	f.Helper()
	entries, err := os.ReadDir("testdata/fuzz/" + f.Name())
	if err != nil || len(entries) == 0 {
		f.Fatalf("no corpus: %v", err)
	}
}

// What parses is the same again after it was written and parsed.
func FuzzIndex(f *testing.F) {
	corpus(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		index, err := decodeIndex(b)
		if err != nil {
			return
		}
		for _, d := range index.Manifests {
			if _, err := blobName(d.Digest); err != nil || d.Size < 0 {
				t.Errorf("descriptor %+v passed", d)
			}
		}
		b, err = json.Marshal(index)
		if err != nil {
			t.Fatal(err)
		}
		again, err := decodeIndex(b)
		if err != nil {
			t.Fatal(err)
		}
		if c, _ := json.Marshal(again); !bytes.Equal(b, c) {
			t.Errorf("%s became %s", b, c)
		}
	})
}

func FuzzManifest(f *testing.F) {
	corpus(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeManifest(b)
		if err != nil {
			return
		}
		for _, d := range m.references() {
			if _, err := blobName(d.Digest); err != nil || d.Size < 0 {
				t.Errorf("reference %+v passed", d)
			}
		}
	})
}

// What parses re-encodes to the same bytes.
func FuzzRecord(f *testing.F) {
	corpus(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRecord(b)
		if err != nil {
			return
		}
		if c, err := r.encode(); err != nil || !bytes.Equal(b, c) {
			t.Errorf("%q became %q, %v", b, c, err)
		}
	})
}

func FuzzLocalRef(f *testing.F) {
	corpus(f)
	f.Fuzz(func(t *testing.T, name string) {
		if ref := LocalRef(name); CheckRef(ref) != nil {
			t.Errorf("LocalRef(%q) is %q", name, ref)
		}
	})
}

func TestRecord(t *testing.T) {
	r := record{Digest: digest.FromString("x"), Path: "/a \"b\"\n", stamp: stamp{1, 2, 3, 4, 5}}
	b, err := r.encode()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := decodeRecord(b); err != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("%+v, %v", got, err)
	}
	for n := range len(b) { // torn at any byte
		if r, err := decodeRecord(b[:n]); err == nil {
			t.Errorf("%q is %+v", b[:n], r)
		}
	}
	if _, err := decodeRecord(append(b, b...)); err == nil {
		t.Error("two records are one")
	}
}

// What parses re-encodes to the same bytes, and SetWishes would take it.
func FuzzWishes(f *testing.F) {
	corpus(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		w, err := decodeWishes(b)
		if err != nil {
			return
		}
		if c, err := w.encode(); err != nil || !bytes.Equal(b, c) {
			t.Errorf("%q became %q, %v", b, c, err)
		}
		for owner, list := range w {
			if sorted, err := sortWishes(list); err != nil || !slices.Equal(sorted, list) || checkOwner(owner) != nil {
				t.Errorf("%q wants %v, %v", owner, list, err)
			}
		}
	})
}
