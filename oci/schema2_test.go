package oci

import (
	"bytes"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// The names of Docker's own format as registries send them; not the constants of the code,
// in which a letter may be wrong.
// https://distribution.github.io/distribution/spec/manifest-v2-2/
const (
	schema2Manifest = "application/vnd.docker.distribution.manifest.v2+json"
	schema2List     = "application/vnd.docker.distribution.manifest.list.v2+json"
	schema2Layer    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	schema2Foreign  = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
	schema2Config   = "application/vnd.docker.container.image.v1+json"
)

// schema2 is an image as "docker push" makes it; each layer is compressed.
func schema2(platform string, layers ...[]byte) *img {
	m := &img{blobs: map[digest.Digest][]byte{}}
	p := v1.Platform{}
	p.OS, p.Architecture, _ = strings.Cut(platform, "/")
	p.Architecture, p.Variant, _ = strings.Cut(p.Architecture, "/")
	config := v1.Image{Platform: p, RootFS: v1.RootFS{Type: "layers"}}
	for _, l := range layers {
		m.layers = append(m.layers, m.put(schema2Layer, asGzip(l)))
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.FromBytes(l))
	}
	m.config = m.put(schema2Config, asJSON(config))
	m.root = m.put(schema2Manifest, m.manifest(schema2Manifest, m.layers...))
	m.root.Platform = &p
	return m
}

// manifest is that of the image, with these layers; it does not say what it is where
// mediaType is "".
func (m *img) manifest(mediaType string, layers ...v1.Descriptor) []byte {
	return asJSON(v1.Manifest{Versioned: versioned, MediaType: mediaType, Config: m.config, Layers: layers})
}

// newDockerRegistry is a registry that gives a manifest only to those who accept its format, and says
// of each what it is, as Docker's does.
func newDockerRegistry(t *testing.T, m *img) *fakeRegistry {
	f := newRegistry(t, m)
	for _, d := range m.list {
		f.manifests[d.Digest.String()] = served{m.blobs[d.Digest], d.MediaType}
	}
	f.lie = func(w http.ResponseWriter, r *http.Request, _ int) bool {
		s, ok := f.manifests[last(r)]
		if !ok || !strings.Contains(r.URL.Path, "/manifests/") || slices.Contains(r.Header.Values("Accept"), s.mediaType) {
			return false
		}
		t.Errorf("%s is asked for by one who does not accept %s, only %q", r.URL.Path, s.mediaType, r.Header.Values("Accept"))
		fail(w, http.StatusNotFound, "MANIFEST_UNKNOWN")
		return true
	}
	return f
}

// isWhole compares all that was found with what there is.
func isWhole(t *testing.T, i *Image, m *img, mediaType string) {
	t.Helper()
	m.check(t, i)
	if i.Root().MediaType != mediaType {
		t.Errorf("root is a %q, want %q", i.Root().MediaType, mediaType)
	}
}

func TestRegistrySchema2(t *testing.T) {
	t.Parallel()
	here := "linux/" + runtime.GOARCH
	m := schema2(here, noise(300_000), []byte("small"), nil)
	if got := fmt.Sprint(mediaTypes(m)); got != fmt.Sprint([]string{schema2Layer, schema2Layer, schema2Layer, schema2Config, schema2Manifest}) {
		t.Fatalf("the test's image is of %s", got)
	}
	f := newDockerRegistry(t, m)
	for _, name := range []string{f.name(), f.name() + ":latest", f.name() + "@" + m.root.Digest.String()} {
		isWhole(t, mustOpen(t, name, plain(t)), m, schema2Manifest)
	}
	layer := m.layers[0]
	b, err := read(mustOpen(t, f.name(), plain(t)), layer, 1000)
	if err != nil || !bytes.Equal(b, m.blobs[layer.Digest][1000:]) {
		t.Errorf("from the middle of a layer on: %d bytes, %v", len(b), err)
	}
	o := plain(t)
	o.Platform = here
	isWhole(t, mustOpen(t, f.name(), o), m, schema2Manifest)
	o.Platform = "linux/s390x"
	openFails(t, f.name(), o, "is for "+here+", not for linux/s390x")
	o.Platform, o.AllPlatforms = "", true
	isWhole(t, mustOpen(t, f.name(), o), m, schema2Manifest)
}

func mediaTypes(m *img) (list []string) {
	for _, d := range m.list {
		list = append(list, d.MediaType)
	}
	return list
}

// A list of platforms, whole or one of it. Registries have lists of each format with images of
// the other one, too.
func TestRegistrySchema2List(t *testing.T) {
	t.Parallel()
	const amd, arm = "linux/amd64", "linux/arm64/v8"
	v7, v6 := schema2("linux/arm/v7", []byte("same"), []byte("v7")), schema2("linux/arm/v6", []byte("same"), []byte("v6"))
	s2amd, s2arm := schema2(amd, []byte("same"), []byte("amd")), schema2(arm, []byte("same"), []byte("arm"))
	oamd, oarm := imgFor(amd, []byte("same"), []byte("amd")), imgFor("linux/arm64", []byte("same"), []byte("arm"))
	for _, c := range []struct {
		name      string
		list      *img
		root      string // its format
		platforms map[string]*img
		child     string // their format
	}{
		{"list", indexAs(schema2List, s2amd, s2arm), schema2List, map[string]*img{amd: s2amd, "linux/arm64": s2arm, arm: s2arm}, schema2Manifest},
		{"variants", indexAs(schema2List, v6, s2amd, v7), schema2List, map[string]*img{amd: s2amd, "linux/arm/v6": v6, "linux/arm/v7": v7}, schema2Manifest},
		{"index of schema 2", index(s2amd, s2arm), v1.MediaTypeImageIndex, map[string]*img{amd: s2amd, arm: s2arm}, schema2Manifest},
		{"list of OCI", indexAs(schema2List, oamd, oarm), schema2List, map[string]*img{amd: oamd, arm: oarm}, v1.MediaTypeImageManifest},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newDockerRegistry(t, c.list)
			for _, name := range []string{f.name(), f.name() + "@" + c.list.root.Digest.String()} {
				o := plain(t)
				for p, m := range c.platforms {
					o.Platform = p
					isWhole(t, mustOpen(t, name, o), m, c.child)
				}
				o.Platform = ""
				if m := c.platforms["linux/"+runtime.GOARCH]; m != nil {
					isWhole(t, mustOpen(t, name, o), m, c.child)
				}
				o.AllPlatforms = true
				isWhole(t, mustOpen(t, name, o), c.list, c.root)
				o.AllPlatforms, o.Platform = false, "linux/s390x"
				openFails(t, name, o, "none for linux/s390x, only for linux/")
			}
		})
	}
	t.Run("list in an index", func(t *testing.T) {
		t.Parallel()
		all := index(indexAs(schema2List, s2amd, s2arm))
		o := plain(t)
		o.AllPlatforms = true
		isWhole(t, mustOpen(t, newDockerRegistry(t, all).name(), o), all, v1.MediaTypeImageIndex)
	})
}

// Every blob of a list with other bytes, one after the other: none is believed.
func TestRegistrySchema2OtherBytes(t *testing.T) {
	t.Parallel()
	list := indexAs(schema2List, schema2("linux/amd64", []byte("amd")), schema2("linux/arm64", []byte("arm")))
	for n, d := range list.list {
		t.Run(fmt.Sprint(n, " ", d.MediaType), func(t *testing.T) {
			t.Parallel()
			f := newDockerRegistry(t, list)
			other := bytes.Clone(list.blobs[d.Digest])
			other[len(other)-1] ^= 1
			f.blobs[d.Digest] = other
			f.manifests[d.Digest.String()] = served{other, d.MediaType}
			o := plain(t)
			o.AllPlatforms = true
			i, err := Open(t.Context(), f.name()+"@"+list.root.Digest.String(), o)
			if err == nil {
				defer i.Close()
				if d.MediaType == schema2Manifest || d.MediaType == schema2List {
					t.Error("the image was opened")
				}
				_, err = read(i, d, 0)
			}
			fails(t, err, "has other bytes than its digest says")
		})
	}
}

// What a manifest does not say of itself the registry does.
func TestRegistrySchema2Told(t *testing.T) {
	t.Parallel()
	one := schema2("linux/"+runtime.GOARCH, []byte("a layer"))
	for _, c := range []struct {
		mediaType string
		m         *img
		raw       []byte
	}{
		{schema2Manifest, one, one.manifest("", one.layers...)},
		{schema2List, one, asJSON(v1.Index{Versioned: versioned, Manifests: []v1.Descriptor{one.root}})},
	} {
		for _, charset := range []string{"", "; charset=utf-8"} {
			f := newRegistry(t, c.m)
			f.manifests["latest"] = served{c.raw, c.mediaType + charset}
			o := plain(t)
			o.AllPlatforms = true
			i := mustOpen(t, f.name(), o)
			if r := i.Root(); r.MediaType != c.mediaType || r.Digest != digest.FromBytes(c.raw) {
				t.Errorf("with %q: root is %v", c.mediaType+charset, r)
			}
		}
	}
}

// The layers of Windows lie at Microsoft's, and are not the registry's to give.
func TestRegistrySchema2Foreign(t *testing.T) {
	t.Parallel()
	m := schema2("windows/amd64", []byte("a layer"))
	foreign := v1.Descriptor{MediaType: schema2Foreign, Digest: digest.FromString("far away"), Size: 8, URLs: []string{"https://far.example/away"}}
	m.list = m.list[:len(m.list)-1]
	m.root = m.put(schema2Manifest, m.manifest(schema2Manifest, foreign, m.layers[0]))
	o := plain(t)
	o.Platform = "windows/amd64"
	f := newDockerRegistry(t, m)
	isWhole(t, mustOpen(t, f.name(), o), m, schema2Manifest)
	if n := len(f.asked(foreign.Digest.String())); n > 0 {
		t.Errorf("the registry was asked %d times for what it has not", n)
	}
}

// Docker's format in layouts, as this project's caches and skopeo keep it.
func TestLayoutSchema2(t *testing.T) {
	t.Parallel()
	amd, arm := schema2("linux/amd64", []byte("same"), []byte("amd")), schema2("linux/arm64", []byte("same"), []byte("arm"))
	list := indexAs(schema2List, amd, arm)
	for kind, name := range everywhere(t, list.files()) {
		t.Run(kind, func(t *testing.T) {
			isWhole(t, mustOpen(t, name, Options{Platform: "arm64"}), arm, schema2Manifest)
			isWhole(t, mustOpen(t, name, Options{AllPlatforms: true}), list, schema2List)
		})
	}
	for kind, name := range everywhere(t, arm.files()) {
		t.Run("one "+kind, func(t *testing.T) {
			isWhole(t, mustOpen(t, name, Options{Platform: "arm64"}), arm, schema2Manifest)
		})
	}
}
