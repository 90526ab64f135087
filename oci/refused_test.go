package oci

import (
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// A layout whose blobs have not the sizes that its manifest says, or that lacks one, is refused when it is opened,
// and says that to send it again does not help.
func TestLayoutSizes(t *testing.T) {
	for name, c := range map[string]struct {
		bytes []byte // nil: the blob is not there
		want  string
	}{
		"shorter": {[]byte("a laye"), "has 6 bytes, not 7"}, "longer": {[]byte("a layer!"), "has 8 bytes, not 7"},
		"empty": {[]byte{}, "has 0 bytes, not 7"}, "gone": {nil, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newImg([]byte("first"), []byte("a layer"))
			files := m.files()
			if files[blobFile(m.layers[1])] = c.bytes; c.bytes == nil {
				delete(files, blobFile(m.layers[1]))
			}
			for kind, source := range everywhere(t, files) {
				want := c.want
				if c.bytes == nil && kind != "dir" {
					want = "file does not exist"
				}
				err := openFails(t, source, Options{}, "blob "+m.layers[1].Digest.String()+": ")
				if fails(t, err, want); !strings.HasPrefix(kindTold(err), "image-damaged") {
					t.Errorf("%s: kind is %q", kind, kindTold(err))
				}
			}
		})
	}
}

// Archives in xz and bzip2 are refused, with the command that unpacks them.
func TestArchiveCompression(t *testing.T) {
	for command, magic := range map[string]string{"xz": "\xfd7zXZ\x00", "bzip2": "BZh9"} {
		path := writeFile(t, "a.tar."+command, []byte(magic+strings.Repeat("x", 2000)))
		_, _, kind := Kind(t.Context(), path, Options{})
		for what, err := range map[string]error{
			"oci-archive": openFails(t, "oci-archive:"+path, Options{}, ""), "docker-archive": openFails(t, "docker-archive:"+path, Options{}, ""), "kind": kind,
		} {
			fails(t, err, "is compressed with "+command+", and only archives in gzip and zstd are read")
			if !strings.HasPrefix(kindTold(err), "archive-compression "+command+" -dk "+path) {
				t.Errorf("%s: kind is %q", what, kindTold(err))
			}
		}
	}
	openFails(t, "oci-archive:"+writeFile(t, "short", []byte("B")), Options{}, "")
}

// Layers with urls are left out, and known.
func TestElsewhere(t *testing.T) {
	m := newImg([]byte("here"), []byte("there"))
	for _, urls := range [][]string{nil, {"https://example.com/layer"}} {
		layers := []v1.Descriptor{m.layers[0], m.layers[1]}
		layers[1].URLs = urls
		o := &img{blobs: m.blobs}
		o.root = o.put(v1.MediaTypeImageManifest, asJSON(v1.Manifest{Versioned: versioned, MediaType: v1.MediaTypeImageManifest, Config: m.config, Layers: layers}))
		i := mustOpen(t, "oci:"+writeDir(t, o.files()), Options{})
		if got := i.Elsewhere(); len(got) != len(urls) || len(got) > 0 && got[0].Digest != layers[1].Digest || len(i.blobs) != 4-len(urls) {
			t.Errorf("%v, %s", got, fmt.Sprint(i.blobs))
		}
	}
}

// A layer is a blob, also one that is called a manifest: its bytes are sent, and not looked into.
func TestLayerCalledManifest(t *testing.T) {
	for _, mediaType := range []string{v1.MediaTypeImageManifest, v1.MediaTypeImageIndex, mediaTypeDockerManifest} {
		m := &img{blobs: map[digest.Digest][]byte{}}
		layer := m.put(mediaType, []byte(`{"schemaVersion":2}`))
		config := m.put("application/vnd.oci.empty.v1+json", []byte("{}"))
		m.root = m.put(v1.MediaTypeImageManifest, asJSON(v1.Manifest{Versioned: versioned, MediaType: v1.MediaTypeImageManifest,
			ArtifactType: "application/x-bundle", Config: config, Layers: []v1.Descriptor{layer}}))
		for _, name := range everywhere(t, m.files()) {
			m.check(t, mustOpen(t, name, Options{}))
		}
	}
}
