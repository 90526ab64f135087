package mirror

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/cache"
)

const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// dockerBuilder collects the blobs of images in Docker's own format.
type dockerBuilder struct {
	t     *testing.T
	all   []v1.Descriptor
	blobs [][]byte
}

func (b *dockerBuilder) add(mediaType string, text []byte) v1.Descriptor {
	d := v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(text), Size: int64(len(text))}
	b.all, b.blobs = append(b.all, d), append(b.blobs, text)
	return d
}

func (b *dockerBuilder) document(mediaType string, v any) v1.Descriptor {
	b.t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		b.t.Fatal(err)
	}
	return b.add(mediaType, text)
}

// fillDocker puts an image for amd64 into a cache as app:amd, and a list with it and one for arm64 as app:all. Each image
// has one layer.
func fillDocker(t *testing.T, c *cache.Cache) (list v1.Descriptor, manifests, layers []v1.Descriptor) {
	t.Helper()
	b := &dockerBuilder{t: t}
	for _, arch := range []string{"amd64", "arm64"} {
		layer := b.add("application/vnd.docker.image.rootfs.diff.tar.gzip", []byte("layer for "+arch))
		config := b.document("application/vnd.docker.container.image.v1+json", v1.Image{Platform: v1.Platform{OS: "linux", Architecture: arch}})
		m := b.document(dockerManifest, v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: dockerManifest,
			Config: config, Layers: []v1.Descriptor{layer}})
		if arch == "amd64" {
			putBlobs(t, c, "reg.example/app:amd", b.all, b.blobs)
		}
		m.Platform = &v1.Platform{OS: "linux", Architecture: arch}
		manifests, layers = append(manifests, m), append(layers, layer)
	}
	list = b.document(dockerList, v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: dockerList, Manifests: manifests})
	putBlobs(t, c, "reg.example/app:all", b.all, b.blobs)
	return list, manifests, layers
}

// Images in Docker's own format are served as what they are, by tag and by digest; so are the
// manifests of a list. The runtime compares the type with what it asked for, or with the list.
func TestDockerFormat(t *testing.T) {
	c, err := cache.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	list, manifests, layers := fillDocker(t, c)
	m := New(c, nil, nil)
	for _, r := range []struct {
		path      string
		want      v1.Descriptor
		mediaType string
	}{
		{"manifests/amd", manifests[0], dockerManifest},
		{"manifests/" + manifests[0].Digest.String(), manifests[0], dockerManifest},
		{"manifests/all", list, dockerList},
		{"manifests/" + list.Digest.String(), list, dockerList},
		{"manifests/" + manifests[1].Digest.String(), manifests[1], dockerManifest}, // only the list names it
		{"blobs/" + layers[1].Digest.String(), layers[1], "application/octet-stream"},
	} {
		for _, method := range []string{"GET", "HEAD"} {
			w := httptest.NewRecorder()
			m.ServeHTTP(w, httptest.NewRequest(method, "/v2/app/"+r.path+"?ns=reg.example", nil))
			h := w.Header()
			if w.Code != 200 || h.Get("Content-Type") != r.mediaType || h.Get("Docker-Content-Digest") != r.want.Digest.String() ||
				h.Get("Content-Length") != fmt.Sprint(r.want.Size) {
				t.Errorf("%s %s: %d %v", method, r.path, w.Code, h)
			}
			if got := digest.FromBytes(w.Body.Bytes()); method == "GET" && got != r.want.Digest {
				t.Errorf("GET %s: %s, want %s", r.path, got, r.want.Digest)
			}
		}
	}

	// A list that lacks a layer is not found, nor is the manifest that needs it: the runtime would get stuck.
	path, err := c.BlobPath(layers[1].Digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{"all": 404, list.Digest.String(): 404, manifests[0].Digest.String(): 200, manifests[1].Digest.String(): 404, "amd": 200} {
		if code := get(New(c, nil, nil), "/v2/app/manifests/"+path+"?ns=reg.example"); code != want {
			t.Errorf("without a layer, %s: %d, want %d", path, code, want)
		}
	}
}
