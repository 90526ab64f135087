package oci

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/ringtest"
)

// dockerConfig is a config of layers with these bytes before they were compressed.
func dockerConfig(layers ...[]byte) []byte {
	c := v1.Image{Platform: v1.Platform{OS: "linux", Architecture: "amd64"}, RootFS: v1.RootFS{Type: "layers"}}
	for _, l := range layers {
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, digest.FromBytes(l))
	}
	return asJSON(c)
}

func file(name string, data []byte) tarEntry {
	return tarEntry{Header: tar.Header{Name: name, Typeflag: tar.TypeReg}, data: data}
}

// As docker save of old wrote it: a layer that is the same as another's is a link.
func TestDockerArchive(t *testing.T) {
	a, b := noise(200_000), []byte("another layer")
	config := dockerConfig(a, b, a)
	raw := asTar(
		file("one/layer.tar", a), file("one/VERSION", []byte("1.0")), file("two/layer.tar", b),
		link("three/layer.tar", "../one/layer.tar", tar.TypeSymlink),
		file("config.json", config),
		file("manifest.json", asJSON([]dockerImage{{Config: "config.json", RepoTags: []string{"app:1"},
			Layers: []string{"one/layer.tar", "two/layer.tar", "three/layer.tar"}}})))
	var roots []digest.Digest
	for name, path := range map[string]string{"tar": writeFile(t, "a", raw), "gzip": writeFile(t, "a", asGzip(raw)), "zstd": writeFile(t, "a", asZstd(raw))} {
		t.Run(name, func(t *testing.T) {
			path = "docker-archive:" + path
			i := mustOpen(t, path, Options{Platform: "linux/amd64"})
			roots = append(roots, i.Root().Digest)
			if i.Name() != "docker.io/library/app:1" || i.Root().Digest != roots[0] {
				t.Errorf("%s is %s", i.Name(), i.Root().Digest)
			}
			blobs, _ := i.Blobs(context.Background())
			manifest, err := read(i, blobs[len(blobs)-1], 0)
			if err != nil {
				t.Fatal(err)
			}
			m, err := decode(manifest, "")
			if err != nil || len(m.Layers) != 3 || m.Layers[0].Digest != m.Layers[2].Digest || m.Layers[0].MediaType != v1.MediaTypeImageLayer {
				t.Errorf("%+v, %v", m, err)
			}
			ringtest.TestSource(t, func(t *testing.T) ring.Source { return mustOpen(t, path, Options{}) }, a, b, config, manifest)
			openFails(t, path, Options{Platform: "linux/arm64"}, "is for linux/amd64, not for linux/arm64")
		})
	}
}

// A compressed layer keeps the bytes it has, under their digest.
func TestDockerArchiveCompressedLayer(t *testing.T) {
	a, b, c := bytes.Repeat([]byte("a"), 10_000), bytes.Repeat([]byte("b"), 10_000), []byte{}
	raw := asTar(file("a", asGzip(a)), file("b", asZstd(b)), file("c", c), file("config", dockerConfig(a, b, c)),
		file("manifest.json", asJSON([]dockerImage{{Config: "config", Layers: []string{"a", "b", "c"}}})))
	i := mustOpen(t, "docker-archive:"+writeFile(t, "a", asGzip(raw)), Options{})
	blobs, _ := i.Blobs(context.Background())
	for n, want := range []struct {
		bytes     []byte
		mediaType string
	}{{asGzip(a), v1.MediaTypeImageLayerGzip}, {asZstd(b), v1.MediaTypeImageLayerZstd}, {c, v1.MediaTypeImageLayer}} {
		d := blobs[n]
		if b, err := read(i, d, 0); err != nil || !bytes.Equal(b, want.bytes) || d.Digest != digest.FromBytes(want.bytes) || d.MediaType != want.mediaType {
			t.Errorf("layer %d: %+v, %d bytes, %v", n, d, len(b), err)
		}
	}
	if i.Name() != "" {
		t.Errorf("name is %q", i.Name())
	}
}

// What one of several images is named by.
func TestDockerArchiveRefs(t *testing.T) {
	one, two := dockerConfig([]byte("1")), dockerConfig([]byte("2"))
	path := "docker-archive:" + writeFile(t, "a", asTar(file("1", []byte("1")), file("2", []byte("2")), file("c1", one), file("c2", two),
		file("manifest.json", asJSON([]dockerImage{
			{Config: "c1", RepoTags: []string{"app:1", "example.com:5000/team/app:1"}, Layers: []string{"1"}},
			{Config: "c2", RepoTags: []string{"app:latest", "app:Not valid"}, Layers: []string{"2"}}}))))
	for ref, want := range map[string]struct {
		config []byte
		name   string
	}{
		"app:1":                       {one, "docker.io/library/app:1"},
		"docker.io/library/app:1":     {one, "docker.io/library/app:1"},
		"example.com:5000/team/app:1": {one, "example.com:5000/team/app:1"},
		"app":                         {two, "docker.io/library/app:latest"},
	} {
		i := mustOpen(t, path+":"+ref, Options{})
		if i.blobs[1].Digest != digest.FromBytes(want.config) || i.Name() != want.name {
			t.Errorf("%s is %s %v", ref, i.Name(), i.blobs)
		}
	}
	for ref, want := range map[string]string{
		"":       "has 2 images: app:1, example.com:5000/team/app:1, app:latest",
		":app:2": `has no "app:2", only app:1, example.com`,
		":":      "nothing follows the colon",

		":app:Not valid": `"app:Not valid", is none that a runtime could ask for`,
	} {
		if err := openFails(t, path+ref, Options{}, want); ref != ":" && kindTold(err) == "" {
			t.Errorf("%q: no hint", ref)
		}
	}
}

// One tag of two images names neither; of one image that is there twice it is enough.
func TestDockerArchiveAmbiguous(t *testing.T) {
	one, two := dockerConfig([]byte("1")), dockerConfig([]byte("2"))
	for other, want := range map[string]string{"c2": `"app" may be any of 2 images`, "c1": ""} {
		path := "docker-archive:" + writeFile(t, "a", asTar(file("1", []byte("1")), file("2", []byte("2")), file("c1", one), file("c2", two),
			file("manifest.json", asJSON([]dockerImage{
				{Config: "c1", RepoTags: []string{"app:latest"}, Layers: []string{"1"}},
				{Config: other, RepoTags: []string{"index.docker.io/app"}, Layers: []string{other[1:]}}}))))
		if want == "" {
			mustOpen(t, path+":app", Options{})
		} else if err := openFails(t, path+":app", Options{}, want); kindTold(err) == "" {
			t.Error("no hint")
		}
	}
}

// The same of a layout, where tags, full names and digests name an image.
func TestLayoutRefs(t *testing.T) {
	one, two := newImg([]byte("1")), newImg([]byte("2"))
	both := index(one, two)
	first, second := one.root, two.root
	first.Annotations = map[string]string{v1.AnnotationRefName: "1", "io.containerd.image.name": "docker.io/library/app:1"}
	second.Annotations = map[string]string{v1.AnnotationRefName: "example.com/app:2"}
	for kind, name := range everywhere(t, both.files(first, second)) {
		for ref, want := range map[string]struct {
			m    *img
			name string
		}{
			"1":                       {one, "docker.io/library/app:1"},
			"docker.io/library/app:1": {one, "docker.io/library/app:1"},
			"example.com/app:2":       {two, "example.com/app:2"},
			two.root.Digest.String():  {two, "example.com/app:2"},
		} {
			i := mustOpen(t, name+":"+ref, Options{})
			if want.m.check(t, i); i.Name() != want.name {
				t.Errorf("%s: %s is %s", kind, ref, i.Name())
			}
		}
		err := openFails(t, name, Options{}, "has 2 images: docker.io/library/app:1, example.com/app:2")
		err2 := openFails(t, name+":3", Options{}, `has no "3", only docker.io/library/app:1, example.com/app:2`)
		if kindTold(err) == "" || kindTold(err2) == "" {
			t.Error("no hint")
		}
	}
}

func TestDockerArchiveDamaged(t *testing.T) {
	layer := []byte("a layer")
	config := dockerConfig(layer)
	good := dockerImage{Config: "config", Layers: []string{"layer"}}
	list := func(i ...dockerImage) []byte { return asJSON(i) }
	for _, c := range []struct {
		name, want string
		entries    []tarEntry
	}{
		{"nothing", "not an archive of docker save: no manifest.json", nil},
		{"torn list", "manifest.json: unexpected end", []tarEntry{file("manifest.json", []byte("[{"))}},
		{"no image", "there is no image in it", []tarEntry{file("manifest.json", []byte("[]"))}},
		{"null", `config ""`, []tarEntry{file("manifest.json", []byte("[null]"))}},
		{"no config", `config "config": config: file does not exist`, []tarEntry{file("manifest.json", list(good))}},
		{"odd config", `config "config": `, []tarEntry{file("manifest.json", list(good)), file("config", []byte("x"))}},
		{"large config", "4194305 bytes, at most", []tarEntry{file("manifest.json", list(good)), file("config", make([]byte, MaxManifest+1))}},
		{"no layer", `layer "layer": layer: file does not exist`, []tarEntry{file("manifest.json", list(good)), file("config", config)}},
		{"more layers", "1 diff_ids for 2 layers", []tarEntry{file("manifest.json",
			list(dockerImage{Config: "config", Layers: []string{"layer", "layer"}})), file("config", config), file("layer", layer)}},
		{"other layer", "has other bytes than its digest says", []tarEntry{file("manifest.json", list(good)), file("config", config), file("layer", []byte("b layer"))}},
		{"longer layer", "has other bytes than its digest says", []tarEntry{file("manifest.json", list(good)), file("config", config), file("layer", []byte("a layer more"))}},
		{"odd diff_id", "diff_id \"sha256:../..\"", []tarEntry{file("manifest.json", list(good)),
			file("config", []byte(`{"rootfs":{"diff_ids":["sha256:../.."]}}`)), file("layer", layer)}},
		{"config outside", `config "../../etc/passwd"`, []tarEntry{file("manifest.json", list(dockerImage{Config: "../../etc/passwd"}))}},
		{"layer outside", `layer "/etc/passwd"`, []tarEntry{file("manifest.json", list(dockerImage{Config: "config", Layers: []string{"/etc/passwd"}})), file("config", config)}},
		{"link outside", "file does not exist", []tarEntry{file("manifest.json", list(good)), file("config", config), link("layer", "/etc/passwd", tar.TypeSymlink)}},
		{"many images", "1001 images, at most 1000", []tarEntry{file("manifest.json", []byte("["+strings.Repeat("{},", 1000)+"{}]"))}},
		{"many layers", "image 0: 10001 layers, at most 10000", []tarEntry{file("manifest.json",
			fmt.Appendf(nil, `[{"Layers":[%s""]}]`, strings.Repeat(`"",`, MaxLayers)))}},
	} {
		t.Run(c.name, func(t *testing.T) {
			i, err := Open(context.Background(), "docker-archive:"+writeFile(t, "a", asTar(c.entries...)), Options{})
			if err == nil {
				defer i.Close()
				var b []byte
				if b, err = read(i, i.blobs[0], 0); int64(len(b)) >= i.blobs[0].Size {
					t.Errorf("all of what is wrong was given: %d bytes", len(b))
				}
			}
			fails(t, err, c.want)
		})
	}
}

func kindOf(ctx context.Context, name string) (string, error) {
	kind, _, err := Kind(ctx, name, Options{})
	return kind, err
}

func TestKind(t *testing.T) {
	ctx := context.Background()
	layout, docker := file("./oci-layout", nil), file("manifest.json", nil)
	for _, c := range []struct {
		want    string
		entries []tarEntry
	}{
		{"oci-archive", []tarEntry{layout}}, {"docker-archive", []tarEntry{docker}}, {"oci-archive", []tarEntry{docker, layout}},
		{"", []tarEntry{file("else", nil)}}, {"", nil},
	} {
		for _, b := range [][]byte{asTar(c.entries...), asGzip(asTar(c.entries...)), asZstd(asTar(c.entries...))} {
			if got, err := kindOf(ctx, writeFile(t, "a", b)); got != c.want || err != nil {
				t.Errorf("%q, %v, want %q", got, err, c.want)
			}
		}
	}
	for _, b := range []string{"\x1f\x8b", "\x28\xb5\x2f\xfd", "no archive", "\x1f\x8bno archive at all"} {
		_, err := kindOf(ctx, writeFile(t, "a", []byte(b)))
		fails(t, err, "archive: ")
	}
	_, err := kindOf(ctx, t.TempDir())
	fails(t, err, "not a regular file")
	gone, cancel := context.WithCancel(ctx)
	cancel()
	_, err = kindOf(gone, writeFile(t, "a", asTar(layout)))
	fails(t, err, "context canceled")
}
