package cache

import (
	"encoding/json"
	"errors"
	"maps"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// indexOf is an index of images, as one image.
func indexOf(images ...image) image { return listOf(v1.MediaTypeImageIndex, images...) }

func listOf(mediaType string, images ...image) image {
	im := image{bytes: map[digest.Digest][]byte{}}
	var roots []v1.Descriptor
	for _, x := range images {
		im.blobs = append(im.blobs, x.blobs...)
		maps.Copy(im.bytes, x.bytes)
		roots = append(roots, x.root())
	}
	raw, _ := json.Marshal(v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: mediaType, Manifests: roots})
	root := v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	im.blobs = append(im.blobs, root)
	im.bytes[root.Digest] = raw
	return im
}

// An image that lacks a blob is not handed to a runtime.
func TestBrokenImage(t *testing.T) {
	c := mustOpen(t)
	im := newImage(v1.MediaTypeImageLayer, "layer")
	mustPush(t, c, "x/a:1", im)
	if err := c.Startable(t.Context(), im.root()); err != nil {
		t.Error(err)
	}
	rot(t, c, im.blobs[0].Digest)
	if _, err := c.Verify(t.Context(), func(Result) {}); err != nil {
		t.Error(err)
	}
	if path, err := c.Path("x/a:1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("path %s, %v", path, err)
	}
	if list, err := c.List(); err != nil || list[0].Err == nil {
		t.Errorf("listed as %+v, %v", list, err)
	}
	if c.Startable(t.Context(), im.root()) == nil {
		t.Error("startable without its layer")
	}
}

// A name with a tag and a digest says nothing of what the tag names now.
func TestReferenceWithBoth(t *testing.T) {
	c := mustOpen(t)
	im := newImage(v1.MediaTypeImageLayer, "old")
	mustPush(t, c, "reg.io/app:v1@"+im.root().Digest.String(), im)
	list, err := c.References()
	if err != nil || len(list) != 1 || list[0].Repository != "reg.io/app" || list[0].Tag != "" {
		t.Errorf("%+v, %v", list, err)
	}
}

// As deep as package oci allows an image to be, and one more.
func TestDepth(t *testing.T) {
	c := mustOpen(t)
	im := newImage(v1.MediaTypeImageLayer, "layer")
	for range 4 {
		im = indexOf(im)
	}
	mustPush(t, c, "x/deep:1", im)
	if _, err := push(c, "x/deeper:1", indexOf(im)); err == nil {
		t.Error("an index too many was taken")
	}
}
