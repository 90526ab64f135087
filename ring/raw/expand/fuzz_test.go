package expand

import (
	"bytes"
	"context"
	"io"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// memory is a File in memory.
type memory struct{ *bytes.Reader }

func (memory) Unchanged(context.Context) error { return nil }
func (memory) Close() error                    { return nil }

// expands opens b as an image, and reads it if it is not long. It may be none, but its length may not be another one than
// was known before.
func expands(t *testing.T, b []byte, o Options) {
	o.Name = "x"
	im, err := Open(t.Context(), memory{bytes.NewReader(b)}, o)
	if err != nil || im.Size() > 4<<20 {
		return
	}
	r, err := im.Open(t.Context(), v1.Descriptor{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if n, err := io.Copy(io.Discard, r); err == nil && n != im.Size() {
		t.Errorf("%d bytes, and %d were offered", n, im.Size())
	}
}

func FuzzXZ(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) { expands(t, b, Options{Format: XZ}) })
}

func FuzzZstd(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) { expands(t, b, Options{Format: Zstd}) })
}

func FuzzDetect(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) { expands(t, b, Options{Format: Auto}) })
}

func FuzzMap(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseMap(b)
		if err != nil {
			return
		}
		var end int64
		for _, r := range m.ranges {
			if r.off < end || r.end <= r.off || r.end > m.size {
				t.Fatalf("range %+v behind %d of %d", r, end, m.size)
			}
			end = r.end
		}
		expands(t, b, Options{Format: Raw, Map: m})
	})
}
