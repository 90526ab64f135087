package node

import (
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/image"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
	"github.com/dolly-img/dolly-img/sif"
)

// A SIF that Singularity before 3.7 pushed to a registry is one like any other: checked before it is sent, put
// at a path, and a file for cache path.
func TestOldSIF(t *testing.T) {
	real := filepath.Join(t.TempDir(), "a.sif")
	if err := sif.Create(real, strings.NewReader("a file system"), sif.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	good := mustRead(t, real)
	for _, mediaType := range []string{"appliciation/vnd.sylabs.sif.layer.tar", "application/vnd.sylabs.sif.layer.tar"} {
		for text, bad := range map[string]bool{good: false, "a layer.tar after all": true, good[:4200]: true} {
			n := newTestNode(t)
			out := filepath.Join(n.data, "a.sif")
			r, data := request(t, meta.Transfer{Kind: meta.KindImage, Ref: "reg.example/lab/a:1", Output: out}, text)
			// The same artifact, with the layer's type of then.
			root := &r.Blobs[len(r.Blobs)-1]
			manifest := strings.Replace(data[root.Digest], sif.LayerMediaType, mediaType, 1)
			r.Blobs[0].MediaType = mediaType
			root.Digest, root.Size = digest.FromString(manifest), int64(len(manifest))
			data[root.Digest] = manifest
			sink, err := n.accept(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			play(t, sink, r, data, true)
			if mustRead(t, out) != text {
				t.Errorf("%s: was not placed", mediaType)
			}
			alone := r
			beside := filepath.Join(n.data, "alone.sif")
			if alone.Meta, err = (&meta.Transfer{Kind: meta.KindImage, NoKeep: true, Output: beside}).Encode(); err != nil {
				t.Fatal(err)
			}
			if sink, err = n.accept(t.Context(), alone); err != nil {
				t.Fatalf("%s, without a copy in the cache: %v", mediaType, err)
			}
			play(t, sink, alone, data, true)
			if mustRead(t, beside) != text {
				t.Errorf("%s: was not placed without a copy in the cache", mediaType)
			}
			path, err := n.cache.Path("reg.example/lab/a:1")
			if err != nil || mustRead(t, path) != text {
				t.Errorf("%s: path %s, %v", mediaType, path, err)
			}
			m := &meta.Transfer{Output: "/data/a.sif"}
			source, err := image.Open(t.Context(), "oci:"+n.cache.Dir()+":reg.example/lab/a:1", image.Options{}, m)
			if (err != nil && strings.Contains(err.Error(), "its SIF: ")) != bad {
				t.Errorf("%s: %v", mediaType, err)
			}
			if err == nil {
				if image.SIFDigest(t.Context(), source) != digest.FromString(text).String() {
					t.Errorf("%s: its own digest is not known", mediaType)
				}
				source.(io.Closer).Close()
			}
		}
	}
}

// A SIF of a registry or a layout is looked at like a file, before anything of it is sent.
func TestOpenImageChecksSIF(t *testing.T) {
	n := newTestNode(t)
	real := filepath.Join(t.TempDir(), "a.sif")
	if err := sif.Create(real, strings.NewReader("a file system"), sif.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"good":      mustRead(t, real),
		"no":        "no SIF",
		"truncated": mustRead(t, real)[:4200],
	} {
		r, data := request(t, meta.Transfer{Kind: meta.KindImage, Ref: "localhost/" + name + ":latest"}, text)
		sink, err := n.accept(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		play(t, sink, r, data, true)
		source, err := image.Open(t.Context(), "oci:"+n.cache.Dir()+":localhost/"+name+":latest", image.Options{}, &meta.Transfer{})
		if bad := err != nil && strings.Contains(err.Error(), "its SIF: "); bad != (name != "good") {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			source.(io.Closer).Close()
		}
	}
}
