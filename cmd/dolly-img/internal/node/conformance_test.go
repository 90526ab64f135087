package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/ringtest"
)

func TestPlacingSink(t *testing.T) {
	for _, format := range []string{"", meta.FormatArchive, meta.FormatLayout} {
		t.Run("format "+format, func(t *testing.T) {
			testOutputSink(t, meta.Transfer{Kind: meta.KindImage, Ref: "localhost/a:latest", Format: format},
				func(t *testing.T, n *testNode, out string, blobs []v1.Descriptor, data map[digest.Digest]string) bool {
					_, err := n.cache.Resolve("localhost/a:latest")
					return err == nil && whole(t, out, blobs, data)
				})
		})
	}
}

func TestDirectSink(t *testing.T) {
	testOutputSink(t, meta.Transfer{Kind: meta.KindImage, NoKeep: true},
		func(t *testing.T, _ *testNode, out string, blobs []v1.Descriptor, data map[digest.Digest]string) bool {
			return mustRead(t, out) == data[blobs[0].Digest]
		})
}

// testOutputSink is the suite of sinks for what a node makes of m at an output; published says
// whether it is there.
func testOutputSink(t *testing.T, m meta.Transfer, published func(t *testing.T, n *testNode, out string, blobs []v1.Descriptor, data map[digest.Digest]string) bool) {
	ringtest.TestSink(t, func(t *testing.T) ringtest.Sink {
		n := newTestNode(t)
		m, out := m, filepath.Join(n.over, "a")
		m.Output = out
		r, data := request(t, m, strings.Repeat("a SIF ", 500_000))
		s := ringtest.Sink{
			New: func() ring.Sink {
				sink, err := n.accept(t.Context(), r)
				if err != nil {
					t.Fatal(err)
				}
				return sink
			},
			Blobs: r.Blobs,
			Left: func(t *testing.T) (left []string) {
				for _, dir := range []string{n.over, filepath.Join(n.cache.Dir(), "ingest"), filepath.Join(n.cache.Dir(), "leases")} {
					entries, err := os.ReadDir(dir)
					if err != nil {
						t.Fatal(err)
					}
					for _, e := range entries {
						if e.Name() != "a" {
							left = append(left, e.Name())
						}
					}
				}
				return left
			},
			Published: func(t *testing.T) bool { return published(t, n, out, r.Blobs, data) },
		}
		for _, d := range r.Blobs {
			s.Bytes = append(s.Bytes, []byte(data[d.Digest]))
		}
		return s
	})
}

// whole says whether an output, in whatever format, has every byte of the image that belongs there.
func whole(t *testing.T, out string, blobs []v1.Descriptor, data map[digest.Digest]string) bool {
	t.Helper()
	info, err := os.Lstat(out)
	if err != nil {
		return false
	}
	if info.IsDir() {
		for _, d := range blobs {
			if mustRead(t, filepath.Join(out, blobFile(d))) != data[d.Digest] {
				return false
			}
		}
		return mustRead(t, filepath.Join(out, v1.ImageIndexFile)) != ""
	}
	return strings.Contains(mustRead(t, out), data[blobs[0].Digest])
}
