package image

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/ringtest"
	"github.com/dolly-img/dolly-img/sif"
)

func TestSIFSource(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.sif")
	if err := sif.Create(path, strings.NewReader(strings.Repeat("a file system ", 100_000)), sif.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	config, manifest, err := sif.Artifact(digest.FromBytes(text), int64(len(text)), "a.sif")
	if err != nil {
		t.Fatal(err)
	}
	ringtest.TestSource(t, func(t *testing.T) ring.Source {
		f, err := sif.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}, text, config, manifest)
}

func TestPullSource(t *testing.T) {
	s := newSmallRegistry(t, 3<<20)
	ringtest.TestSource(t, func(t *testing.T) ring.Source {
		p, err := s.pull(t, "x/a:1", t.TempDir(), cache.Limits{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}, s.layers[0], s.layers[1], []byte("{}"), s.manifest)
}
