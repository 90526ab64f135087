package mirror

import (
	"encoding/json"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/cache"
)

// tree is an index of images with a layer each, in a cache.
type tree struct {
	t     *testing.T
	c     *cache.Cache
	all   []v1.Descriptor
	blobs [][]byte
}

func newTree(t *testing.T) *tree {
	t.Helper()
	c, err := cache.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return &tree{t: t, c: c}
}

func (r *tree) add(mediaType string, b []byte) v1.Descriptor {
	d := v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	r.all, r.blobs = append(r.all, d), append(r.blobs, b)
	return d
}

// image adds one for an architecture, and returns its layer, too.
func (r *tree) image(arch string) (manifest, layer v1.Descriptor) {
	layer = r.add(v1.MediaTypeImageLayer, []byte("layer for "+arch))
	config := r.add(v1.MediaTypeImageConfig, []byte(`{"architecture":"`+arch+`"}`))
	manifest = r.add(v1.MediaTypeImageManifest, r.json(v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: v1.MediaTypeImageManifest, Config: config, Layers: []v1.Descriptor{layer}}))
	manifest.Platform = &v1.Platform{OS: "linux", Architecture: arch}
	return manifest, layer
}

func (r *tree) index(of ...v1.Descriptor) v1.Descriptor {
	return r.add(v1.MediaTypeImageIndex, r.json(v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex, Manifests: of}))
}

func (r *tree) json(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		r.t.Fatal(err)
	}
	return b
}

// name puts all that was added into the cache; the last is what the name names.
func (r *tree) name(ref string) { r.t.Helper(); putBlobs(r.t, r.c, ref, r.all, r.blobs) }

func (r *tree) path(d v1.Descriptor) string {
	r.t.Helper()
	path, err := r.c.BlobPath(d.Digest)
	if err != nil {
		r.t.Fatal(err)
	}
	return path
}

// rot changes a byte of a blob.
func (r *tree) rot(d v1.Descriptor) {
	r.t.Helper()
	b, err := os.ReadFile(r.path(d))
	if err == nil {
		b[0] ^= 1
		if err = os.Chmod(r.path(d), 0o644); err == nil {
			err = os.WriteFile(r.path(d), b, 0o644)
		}
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *tree) verify(bad int) {
	r.t.Helper()
	if n, err := r.c.Verify(r.t.Context(), func(cache.Result) {}); n < bad || err != nil {
		r.t.Fatalf("%d are bad, %v", n, err)
	}
}

// answers compares what GET and HEAD of manifests say.
func (r *tree) answers(want map[string]int) {
	r.t.Helper()
	m := New(r.c, nil, nil)
	for ref, status := range want {
		for _, method := range []string{"HEAD", "GET"} {
			w := httptest.NewRecorder()
			m.ServeHTTP(w, httptest.NewRequest(method, "/v2/app/manifests/"+ref+"?ns=reg.example", nil))
			if w.Code != status {
				r.t.Errorf("%s %s: %d, want %d", method, ref, w.Code, status)
			}
		}
	}
}

// A list of platforms is not found when one of those that were pushed with it is not whole, whatever is
// wrong with it and however deep it is; the platforms that are whole are, by their digests.
func TestBrokenPlatformIsNotFound(t *testing.T) {
	for name, harm := range map[string]func(r *tree, manifest, layer v1.Descriptor){
		"a layer is in quarantine": func(r *tree, _, layer v1.Descriptor) { r.rot(layer); r.verify(1) },
		"a layer has rotted":       func(r *tree, _, layer v1.Descriptor) { r.rot(layer) },
		"a layer is gone":          func(r *tree, _, layer v1.Descriptor) { r.t.Helper(); os.Remove(r.path(layer)) },
		"a layer was cut":          func(r *tree, _, layer v1.Descriptor) { os.Truncate(r.path(layer), 3) },
		"its manifest is in quarantine": func(r *tree, manifest, _ v1.Descriptor) {
			r.rot(manifest)
			r.verify(1)
		},
		"its manifest has rotted": func(r *tree, manifest, _ v1.Descriptor) { r.rot(manifest) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newTree(t)
			amd, _ := r.image("amd64")
			arm, armLayer := r.image("arm64")
			inner := r.index(amd, arm)
			risc, _ := r.image("riscv64")
			outer := r.index(risc, inner)
			r.name("reg.example/app:v1")
			r.answers(map[string]int{"v1": 200, outer.Digest.String(): 200, inner.Digest.String(): 200, arm.Digest.String(): 200})
			harm(r, arm, armLayer)
			r.answers(map[string]int{"v1": 404, outer.Digest.String(): 404, inner.Digest.String(): 404, arm.Digest.String(): 404,
				amd.Digest.String(): 200, risc.Digest.String(): 200})
			// The next push brings it again.
			r.name("reg.example/app:v1")
			r.answers(map[string]int{"v1": 200, outer.Digest.String(): 200, inner.Digest.String(): 200, arm.Digest.String(): 200})
		})
	}
}

// Of a list some of whose platforms never were here it counts whether there is one for this machine.
func TestListWithoutThisPlatform(t *testing.T) {
	r := newTree(t)
	other := "mips64le"
	mine, _ := r.image(runtime.GOARCH)
	theirs, _ := r.image(other)
	r.name("reg.example/app:theirs") // the last one, and the blobs of both
	list := r.index(mine, theirs)
	write := func(ref string) {
		t.Helper()
		index, err := json.Marshal(v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []v1.Descriptor{{
			MediaType: list.MediaType, Digest: list.Digest, Size: list.Size, Annotations: map[string]string{v1.AnnotationRefName: ref}}}})
		if err == nil {
			err = os.WriteFile(filepath.Join(r.c.Dir(), "index.json"), index, 0o644)
		}
		if err == nil {
			err = os.WriteFile(r.path(list), r.blobs[len(r.blobs)-1], 0o444)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	write("reg.example/app:all")
	r.answers(map[string]int{"all": 200})
	saved, err := os.ReadFile(r.path(theirs))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(r.path(theirs)); err != nil {
		t.Fatal(err)
	}
	r.answers(map[string]int{"all": 200, mine.Digest.String(): 200, theirs.Digest.String(): 404})
	if err := os.WriteFile(r.path(theirs), saved, 0o444); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(r.path(mine)); err != nil {
		t.Fatal(err)
	}
	r.answers(map[string]int{"all": 404, mine.Digest.String(): 404, theirs.Digest.String(): 200})
}

// A layer is a blob, also one that is called a manifest, or an index, and what it would name is nobody's business;
// as a manifest it is not to be had. One that is a manifest beside it, too, is.
func TestLayerCalledManifest(t *testing.T) {
	for _, mediaType := range []string{v1.MediaTypeImageManifest, v1.MediaTypeImageIndex, "application/vnd.docker.distribution.manifest.list.v2+json"} {
		r := newTree(t)
		nowhere := v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: digest.FromString("nowhere"), Size: 7}
		layer := r.add(mediaType, r.json(v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: mediaType, Config: nowhere, Layers: []v1.Descriptor{nowhere}}))
		config := r.add(mediaType, []byte("no manifest at all"))
		root := r.add(v1.MediaTypeImageManifest, r.json(v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest,
			ArtifactType: "application/x-bundle", Config: config, Layers: []v1.Descriptor{layer}}))
		r.name("reg.example/app:v1")
		r.verify(0)
		r.answers(map[string]int{"v1": 200, root.Digest.String(): 200, layer.Digest.String(): 404, config.Digest.String(): 404})
		if code := get(New(r.c, nil, nil), "/v2/app/blobs/"+layer.Digest.String()+"?ns=reg.example"); code != 200 {
			t.Errorf("%s: the layer is %d", mediaType, code)
		}
		if list, err := r.c.List(); err != nil || len(list) != 1 || list[0].Err != nil || list[0].Size != layer.Size+config.Size+root.Size {
			t.Errorf("%s: %+v, %v", mediaType, list, err)
		}
	}

	r := newTree(t)
	image, inner := r.image("amd64")
	bundle := r.add(v1.MediaTypeImageManifest, r.json(v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest,
		Config: r.all[1], Layers: []v1.Descriptor{image}}))
	list := r.index(bundle, image)
	r.name("reg.example/app:v1")
	r.answers(map[string]int{"v1": 200, list.Digest.String(): 200, image.Digest.String(): 200})
	if err := os.Remove(r.path(inner)); err != nil {
		t.Fatal(err)
	}
	r.answers(map[string]int{"v1": 404, image.Digest.String(): 404, bundle.Digest.String(): 200})
	r.verify(1) // what the manifest needs is looked for, though it was a layer before
}
