package oci

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/containers/image/v5/docker/reference"
	"github.com/containers/image/v5/types"
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

// What a config says of its layers is bounded, and told apart from nothing.
func FuzzDiffIDs(f *testing.F) {
	corpus(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		diffs, err := decodeDiffIDs(b)
		if err != nil && diffs != nil || len(diffs) > MaxLayers || diffs != nil && !strings.Contains(strings.ToLower(string(b)), "rootfs") && !strings.Contains(string(b), `\u`) {
			t.Errorf("%q has diff_ids %q, %v", b, diffs, err)
		}
	})
}

// Whatever a layer holds, unpacking it ends, and tells its digest or an error.
func FuzzUnpackedDigest(f *testing.F) {
	corpus(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 16<<10 {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second) // for what unpacks to much more
		defer cancel()
		got, err := unpackedDigest(ctx, bytes.NewReader(b), digest.SHA256)
		if err == io.EOF || (err == nil) != (got != "") {
			t.Errorf("%q, %v", got, err)
		}
		if err == nil && unpacker(b) == nil && got != digest.FromBytes(b) {
			t.Errorf("%q is not compressed and became %s", b, got)
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

// A registry's headers are read by the library, through which these go: whatever they say, an image
// is right or an error, and that ends.
func fuzzHeaders(t *testing.T, answer func(http.ResponseWriter, *http.Request) bool) {
	t.Helper()
	t.Parallel() // the library waits a second before it asks for the rest
	m := newImg(noise(5000))
	f := newRegistry(t, m)
	f.lie = func(w http.ResponseWriter, r *http.Request, _ int) bool { return answer(w, r) }
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	o := plain(t)
	o.Registry.User, o.Registry.Password = user, password
	i, err := Open(ctx, f.name(), o)
	if err == nil {
		defer i.Close()
		var rc io.ReadCloser
		if rc, err = i.Open(ctx, m.list[0], 0); err == nil {
			defer rc.Close()
			var b []byte
			if b, err = io.ReadAll(rc); err == nil && digest.FromBytes(b) != m.list[0].Digest {
				t.Errorf("%d wrong bytes", len(b))
			}
		}
	}
	silent(t, err)
	if ctx.Err() != nil {
		t.Errorf("went on for too long: %v", err)
	}
}

func FuzzAuthenticate(f *testing.F) {
	corpus(f)
	f.Fuzz(func(t *testing.T, header string) {
		if strings.Contains(header, "://") {
			return // would ask whoever it names
		}
		fuzzHeaders(t, func(w http.ResponseWriter, r *http.Request) bool {
			if _, p, ok := r.BasicAuth(); ok && p == password {
				return false
			}
			w.Header().Set("WWW-Authenticate", header)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		})
	})
}

func FuzzContentRange(f *testing.F) {
	corpus(f)
	f.Fuzz(func(t *testing.T, header string, status, from int) {
		fuzzHeaders(t, func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, "/blobs/") {
				return false
			}
			body := noise(5000)
			if r.Header.Get("Range") == "" { // breaks off, so that the rest is asked for
				w.Header().Set("Content-Length", "5000")
				_, _ = w.Write(body[:3000])
				panic(http.ErrAbortHandler)
			}
			w.Header().Set("Content-Range", header)
			w.WriteHeader(200 + (status&255)%300)
			_, _ = w.Write(body[min(max(from, 0), len(body)):])
			return true
		})
	})
}

// A name of a registry's image is refused, or it is whole: a host, a path and what names the version.
func FuzzReference(f *testing.F) {
	corpus(f)
	f.Fuzz(func(t *testing.T, name string) {
		list, err := names(&types.SystemContext{SystemRegistriesConfPath: os.DevNull, SystemRegistriesConfDirPath: os.DevNull}, name)
		if err != nil {
			return
		}
		for _, named := range list {
			named = oneOf(reference.TagNameOnly(named))
			again, err := reference.ParseNamed(named.String())
			if err != nil || again.String() != named.String() || reference.IsNameOnly(named) {
				t.Errorf("%q became %q: %v", name, named, err)
			}
		}
	})
}

// Every target has a corpus.
func TestCorpora(t *testing.T) {
	source, err := os.ReadFile("fuzz_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, target := range regexp.MustCompile(`(?m)^func (Fuzz\w+)`).FindAllStringSubmatch(string(source), -1) {
		files, err := os.ReadDir(filepath.Join("testdata/fuzz", target[1]))
		if err != nil || len(files) == 0 {
			t.Errorf("%s has no corpus: %v", target[1], err)
		}
	}
}
