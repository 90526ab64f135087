package cache

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// image is a SIF's artifact, or with another layer type an image: its blobs in
// travelling order and their bytes.
type image struct {
	blobs []v1.Descriptor
	bytes map[digest.Digest][]byte
}

func newImage(layerType, layer string) image {
	return makeImage(v1.MediaTypeImageManifest, v1.MediaTypeImageConfig, layerType, layer)
}

func makeImage(manifestType, configType, layerType, layer string) image {
	im := image{bytes: map[digest.Digest][]byte{}}
	add := func(mediaType string, b []byte) v1.Descriptor {
		d := v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
		im.blobs = append(im.blobs, d)
		im.bytes[d.Digest] = b
		return d
	}
	l := add(layerType, []byte(layer))
	config := `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["` + l.Digest.String() + `"]}}`
	c := add(configType, []byte(config))
	m, err := json.Marshal(v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: manifestType,
		Config: c, Layers: []v1.Descriptor{l}})
	if err != nil {
		panic(err)
	}
	add(manifestType, m)
	return im
}

func (im image) root() v1.Descriptor { return im.blobs[len(im.blobs)-1] }

// push does what the ring does with a Sink.
func push(c *Cache, ref string, im image) (inPlace bool, err error) {
	return pushWith(c, ref, im, TransferOptions{})
}

func pushWith(c *Cache, ref string, im image, o TransferOptions) (inPlace bool, err error) {
	ctx := context.Background()
	t := c.Transfer(ref, o)
	defer func() {
		if cerr := t.Close(); err == nil {
			err = cerr
		}
	}()
	held, _, err := t.Offer(ctx, im.blobs)
	if err != nil {
		return false, err
	}
	for i, d := range im.blobs {
		if held[i] == d.Size {
			continue
		}
		w, err := t.Begin(ctx, d, 0)
		if err != nil {
			return false, err
		}
		if _, err := w.Write(im.bytes[d.Digest]); err != nil {
			return false, errors.Join(err, w.Abort(0))
		}
		if err := w.Commit(ctx, d); err != nil {
			return false, err
		}
	}
	if inPlace, err = t.Prepare(ctx, im.blobs); err != nil {
		return false, err
	}
	return inPlace, t.Publish(ctx)
}

func mustOpen(t *testing.T) *Cache {
	t.Helper()
	c, err := Open(filepath.Join(t.TempDir(), "a", "cache"))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func mustPush(t *testing.T, c *Cache, ref string, im image) (inPlace bool) {
	t.Helper()
	inPlace, err := push(c, ref, im)
	if err != nil {
		t.Fatal(err)
	}
	return inPlace
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var s []string
	for _, e := range entries {
		s = append(s, e.Name())
	}
	return s
}
