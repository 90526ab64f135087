package cache

import (
	"errors"
	"fmt"
	"os"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// dockerImage is an image in Docker's own format.
func dockerImage(layer string) image {
	return makeImage(mediaTypeDockerManifest, "application/vnd.docker.container.image.v1+json",
		"application/vnd.docker.image.rootfs.diff.tar.gzip", layer)
}

// size is that of all blobs together.
func (im image) size() (n int64) {
	for _, d := range im.blobs {
		n += d.Size
	}
	return n
}

// verified is how many blobs Verify finds right, and which references and blobs it finds bad.
func verified(t *testing.T, c *Cache) (good int, bad []string) {
	t.Helper()
	if _, err := c.Verify(t.Context(), func(r Result) {
		if r.Err == nil {
			good++
		} else {
			bad = append(bad, r.Ref+" "+r.Digest.String())
		}
	}); err != nil {
		t.Error(err)
	}
	return good, bad
}

// checkListed compares the kind, size, unique size and error of images in List.
func checkListed(t *testing.T, c *Cache, want map[string]string) {
	t.Helper()
	entries, err := c.List()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, e := range entries {
		got[e.Ref] = fmt.Sprint(e.Kind, e.Size, e.Unique, e.Err)
	}
	for ref, want := range want {
		if got[ref] != want {
			t.Errorf("%s is listed as %s, want %s", ref, got[ref], want)
		}
	}
}

// Images in Docker's own format, and lists of them, are received, listed, kept, verified and removed as
// others are.
func TestDockerFormat(t *testing.T) {
	ctx := t.Context()
	c := mustOpen(t)
	amd, arm, single := dockerImage("amd64"), dockerImage("arm64: longer"), dockerImage("of one platform")
	list := listOf(mediaTypeDockerList, amd, arm)
	lacking := list
	lacking.blobs = lacking.blobs[1:] // the layer of the first
	if _, err := push(c, "x/list:1", lacking); !errors.Is(err, ErrNotFound) {
		t.Errorf("push without a layer: %v", err)
	}
	for range 2 { // the second finds all of it
		for ref, im := range map[string]image{"x/list:1": list, "x/amd:1": amd, "x/single:1": single} {
			mustPush(t, c, ref, im)
			if d, err := c.Resolve(ref); err != nil || d.MediaType != im.root().MediaType || d.Digest != im.root().Digest {
				t.Errorf("%s names %+v, %v", ref, d, err)
			}
		}
	}

	checkListed(t, c, map[string]string{
		"x/list:1":   fmt.Sprint(KindIndex, list.size(), list.size()-amd.size(), nil),
		"x/amd:1":    fmt.Sprint(KindImage, amd.size(), 0, nil),
		"x/single:1": fmt.Sprint(KindImage, single.size(), single.size(), nil),
	})
	if path, err := c.Path("x/list:1"); err != nil || path != "oci:"+c.Dir()+":x/list:1" {
		t.Errorf("path %s, %v", path, err)
	}

	// No blob of them is one that no image needs.
	if r, err := c.GC(ctx, GCOptions{}); err != nil || r.Blobs > 0 {
		t.Errorf("gc removed %+v, %v", r, err)
	}
	all := len(list.blobs) + len(single.blobs)
	if good, bad := verified(t, c); good != all || len(bad) > 0 {
		t.Errorf("%d of %d are right, bad are %v", good, all, bad)
	}
	path, err := c.BlobPath(arm.blobs[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprint([]string{"x/list:1 " + arm.blobs[0].Digest.String()})
	if good, bad := verified(t, c); good != all-1 || fmt.Sprint(bad) != want {
		t.Errorf("%d of %d are right, bad are %v, want %s", good, all-1, bad, want)
	}
	mustPush(t, c, "x/list:1", list)

	// With the list goes what no other image needs, and no more; the others by what they are.
	r, err := c.Remove(ctx, "x/list:1")
	if err != nil || r.Blobs != len(list.blobs)-len(amd.blobs) || r.Bytes != list.size()-amd.size() {
		t.Errorf("removed %+v, %v", r, err)
	}
	if got := fmt.Sprint(refs(t, c)); got != "[x/amd:1 x/single:1]" {
		t.Errorf("left %s", got)
	}
	if r, err := c.GC(ctx, GCOptions{Limits: Limits{Max: 1}}); err != nil || len(r.Images) != 2 || len(names(t, c.Dir()+"/blobs/sha256")) > 0 {
		t.Errorf("removed %+v, %v", r, err)
	}
}

// An index may name manifests in Docker's format, a list such of OCI's.
func TestMixedFormats(t *testing.T) {
	c := mustOpen(t)
	docker, oci := dockerImage("docker"), newImage(v1.MediaTypeImageLayer, "oci")
	mustPush(t, c, "x/index:1", indexOf(docker, oci))
	mustPush(t, c, "x/list:1", listOf(mediaTypeDockerList, docker, oci))
	if r, err := c.GC(t.Context(), GCOptions{}); err != nil || r.Blobs > 0 {
		t.Errorf("gc removed %+v, %v", r, err)
	}
	refs(t, c)
	if r, err := c.Remove(t.Context(), "x/list:1"); err != nil || r.Blobs != 1 {
		t.Errorf("removed %+v, %v", r, err)
	}
	if got := fmt.Sprint(refs(t, c)); got != "[x/index:1]" {
		t.Errorf("left %s", got)
	}
}
