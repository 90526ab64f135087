package warmer

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// fakeRegistry is a registry without TLS that notes what it is asked for.
type fakeRegistry struct {
	host  string
	blobs map[digest.Digest][]byte
	types map[digest.Digest]string // media types of manifests

	mu       sync.Mutex
	tags     map[string]digest.Digest
	requests []string // method and path, without the ones for /v2/
	// instead answers a request in place of the registry, and reports whether it did. It may be nil.
	instead func(w http.ResponseWriter, r *http.Request) bool
}

// newFakeRegistry starts a registry, and makes it the only one that this process may ask without TLS.
func newFakeRegistry(t *testing.T) *fakeRegistry {
	t.Helper()
	f := &fakeRegistry{blobs: map[digest.Digest][]byte{}, types: map[digest.Digest]string{}, tags: map[string]digest.Digest{}}
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	f.host = server.Listener.Addr().String()
	configure(t, fmt.Sprintf("unqualified-search-registries = [%q]\n[[registry]]\nlocation = %q\ninsecure = true\n", f.host, f.host))
	return f
}

// configure writes a registries.conf, and keeps whatever the user has configured out of a test.
func configure(t *testing.T, conf string) {
	t.Helper()
	home := t.TempDir()
	for name, value := range map[string]string{"registries.conf": conf, "auth.json": "{}"} {
		if err := os.WriteFile(filepath.Join(home, name), []byte(value), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "DOCKER_CONFIG"} {
		t.Setenv(name, home)
	}
	t.Setenv("CONTAINERS_REGISTRIES_CONF", filepath.Join(home, "registries.conf"))
	t.Setenv("REGISTRY_AUTH_FILE", filepath.Join(home, "auth.json"))
}

func (f *fakeRegistry) put(mediaType string, v any) v1.Descriptor {
	data, is := v.([]byte)
	if !is {
		var err error
		if data, err = json.Marshal(v); err != nil {
			panic(err)
		}
		f.types[digest.FromBytes(data)] = mediaType
	}
	d := v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	f.blobs[d.Digest] = data
	return d
}

// image makes an image for a platform, with a layer that has this text.
func (f *fakeRegistry) image(platform, text string) v1.Descriptor {
	layer := f.put(v1.MediaTypeImageLayer, []byte(text))
	os, arch, _ := strings.Cut(platform, "/")
	p := v1.Platform{OS: os, Architecture: arch}
	config := f.put(v1.MediaTypeImageConfig, v1.Image{Platform: p, RootFS: v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{layer.Digest}}})
	d := f.put(v1.MediaTypeImageManifest, v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest,
		Config: config, Layers: []v1.Descriptor{layer}})
	d.Platform = &p
	return d
}

func (f *fakeRegistry) index(images ...v1.Descriptor) v1.Descriptor {
	return f.put(v1.MediaTypeImageIndex, v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex, Manifests: images})
}

func (f *fakeRegistry) tag(tag string, d v1.Descriptor) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tags[tag] = d.Digest
}

// asked returns the requests since it was called last, each once.
func (f *fakeRegistry) asked() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := f.requests
	f.requests = nil
	return list
}

func (f *fakeRegistry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.URL.Path != "/v2/" {
		f.requests = append(f.requests, r.Method+" "+strings.TrimPrefix(r.URL.Path, "/v2/ml/torch/"))
	}
	if f.instead != nil && f.instead(w, r) {
		return
	}
	name := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
	d := digest.Digest(name)
	if to, is := f.tags[name]; is {
		d = to
	}
	data, is := f.blobs[d]
	switch {
	case r.URL.Path == "/v2/":
	case strings.HasSuffix(r.URL.Path, "/tags/list"):
		list := []string{}
		for tag := range f.tags {
			list = append(list, tag)
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"name": "ml/torch", "tags": list})
	case !is:
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no"}]}`)
	default:
		if mediaType := f.types[d]; mediaType != "" {
			w.Header().Set("Content-Type", mediaType)
		}
		w.Header().Set("Docker-Content-Digest", d.String())
		_, _ = w.Write(data)
	}
}

// layout writes images as an OCI layout into dir, each with a name or tag of its own.
func (f *fakeRegistry) layout(t *testing.T, dir string, images map[string]v1.Descriptor) {
	t.Helper()
	index := v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}}
	for _, name := range slices.Sorted(maps.Keys(images)) {
		d := images[name]
		d.Annotations = map[string]string{v1.AnnotationRefName: name}
		index.Manifests = append(index.Manifests, d)
	}
	text, err := json.Marshal(index)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{"index.json": text, "oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`)}
	for d, data := range f.blobs {
		files["blobs/sha256/"+d.Encoded()] = data
	}
	for name, data := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func decode(t *testing.T, data []byte, to any) {
	t.Helper()
	if err := json.Unmarshal(data, to); err != nil {
		t.Fatal(err)
	}
}

// pack makes a tar of a directory.
func pack(t *testing.T, dir, path string) {
	t.Helper()
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(out)
	if err := errors.Join(w.AddFS(os.DirFS(dir)), w.Close(), out.Close()); err != nil {
		t.Fatal(err)
	}
}
