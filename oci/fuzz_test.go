package oci

import (
	"context"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// corpus fails a target whose committed corpus is gone.
func corpus(f *testing.F) {
	f.Helper()
	entries, err := os.ReadDir("testdata/fuzz/" + f.Name())
	if err != nil || len(entries) == 0 {
		f.Fatalf("no corpus: %v", err)
	}
}

// What is accepted keeps all limits, and is one thing only.
func FuzzDecode(f *testing.F) {
	corpus(f)
	f.Fuzz(func(t *testing.T, b []byte, told string) {
		m, err := decode(b, told)
		if err != nil {
			return
		}
		if len(b) > MaxManifest || len(m.Manifests) > MaxIndex || len(m.Layers) > MaxLayers || m.SchemaVersion != 2 {
			t.Errorf("%d bytes, %d entries, %d layers passed", len(b), len(m.Manifests), len(m.Layers))
		}
		all := append(m.Manifests, m.Layers...)
		if m.Config != nil {
			all = append(all, *m.Config)
		}
		if m.isIndex() != (m.Config == nil) || m.isIndex() && len(m.Layers) > 0 || !m.isIndex() && len(m.Manifests) > 0 {
			t.Errorf("%q is both", b)
		}
		for _, d := range all {
			if d.Digest.Validate() != nil || d.Size < 0 || !filepath.IsLocal(blobFile(d)) || path.Clean(blobFile(d)) != blobFile(d) {
				t.Errorf("descriptor %+v passed", d)
			}
		}
	})
}

func FuzzDockerImages(f *testing.F) {
	corpus(f)
	f.Fuzz(func(t *testing.T, b []byte, ref string) {
		list, err := decodeDockerImages(b)
		if err != nil {
			return
		}
		if len(list) > MaxIndex {
			t.Errorf("%d images passed", len(list))
		}
		image, _, err := pickDocker(list, ref)
		if err != nil {
			return
		}
		if len(image.Layers) > MaxLayers || ref == "" && len(list) != 1 {
			t.Errorf("%d layers of %d images passed", len(image.Layers), len(list))
		}
	})
}

// A name is cut, and nothing of it lost.
func FuzzSplit(f *testing.F) {
	corpus(f)
	f.Fuzz(func(t *testing.T, name string) {
		transport, rest := Split(name)
		if whole := strings.TrimPrefix(transport+":"+rest, ":"); whole != name && transport != "" || transport == "" && rest != name {
			t.Errorf("%q became %q and %q", name, transport, rest)
		}
		path, ref, err := splitPath(rest)
		if err != nil {
			return
		}
		if path == "" || strings.Contains(path, ":") || path != rest && path+":"+ref != rest {
			t.Errorf("%q became %q and %q", rest, path, ref)
		}
	})
}

// Whatever a file holds, it is refused or read, and that ends.
func FuzzArchive(f *testing.F) {
	corpus(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 16<<10 {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second) // for what unpacks to much more
		defer cancel()
		name := filepath.Join(t.TempDir(), "a")
		if err := os.WriteFile(name, b, 0o644); err != nil {
			t.Fatal(err)
		}
		a, err := openArchive(ctx, name)
		if err != nil {
			if err == io.EOF {
				t.Error("a bare EOF")
			}
			return
		}
		defer a.Close()
		for name := range a.entries {
			rc, size, err := a.open(ctx, name, 0)
			if err != nil {
				continue
			}
			n, err := io.Copy(io.Discard, &untilDone{ctx, rc})
			if err == nil && n != size || n > size {
				t.Errorf("%q has %d bytes, not %d", name, n, size)
			}
			rc.Close()
		}
		for _, open := range []func(context.Context, string) (store, string, error){openOCIArchive, openDockerArchive} {
			if s, _, err := open(ctx, name); err == nil {
				_, _, _ = s.rootManifest(ctx)
				s.Close()
			}
		}
	})
}

// What is accepted demands something of every image.
func FuzzPolicy(f *testing.F) {
	corpus(f)
	f.Fuzz(func(t *testing.T, b []byte, transport, scope string) {
		p, err := decodePolicy(b)
		if err != nil {
			return
		}
		if len(p.requirements(transport, scope)) == 0 {
			t.Errorf("%q demands nothing of %q %q", b, transport, scope)
		}
	})
}

// The corpora are committed, a target without one would test nothing.
func TestCorpora(t *testing.T) {
	for _, name := range []string{"FuzzDecode", "FuzzDockerImages", "FuzzSplit", "FuzzArchive", "FuzzPolicy"} {
		files, err := os.ReadDir(filepath.Join("testdata/fuzz", name))
		if err != nil || len(files) == 0 {
			t.Error(errors.Join(err, errors.New(name+" has no corpus")))
		}
	}
}
