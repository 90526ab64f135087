package cache

import (
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/cache/durable"
)

// A blob that rotted is put aside and comes again.
func TestQuarantine(t *testing.T) {
	c := mustOpen(t)
	im := newImage(v1.MediaTypeImageLayer, "layer")
	mustPush(t, c, "x/a:1", im)
	path, err := c.BlobPath(im.blobs[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("rotte"), 0o444); err != nil {
		t.Fatal(err)
	}
	bad, err := c.Verify(t.Context(), func(Result) {})
	if err != nil || bad != 2 { // the blob, and the image that lacks it now
		t.Errorf("%d bad, %v", bad, err)
	}
	if got := names(t, c.Dir()+"/quarantine"); len(got) != 1 || got[0] != flat(im.blobs[0].Digest) {
		t.Errorf("in quarantine: %v", got)
	}
	mustPush(t, c, "x/a:1", im)
	if bad, err := c.Verify(t.Context(), func(Result) {}); err != nil || bad != 0 {
		t.Errorf("%d bad after the next push, %v", bad, err)
	}
}

func rot(t *testing.T, c *Cache, d digest.Digest) {
	t.Helper()
	path, err := c.BlobPath(d)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("rot"), 0o644); err != nil {
		t.Fatal(err)
	}
}

// hooked calls out before a file goes to quarantine, and before the lock is asked for.
type hooked struct {
	durable.FS
	quarantine, lock func()
}

func (h hooked) Rename(from, to string) error {
	if strings.HasPrefix(to, "quarantine/") {
		h.quarantine()
	}
	return h.FS.Rename(from, to)
}

func (h hooked) OpenFile(name string, flag int, perm fs.FileMode) (durable.File, error) {
	if name == "lock" {
		h.lock()
	}
	return h.FS.OpenFile(name, flag, perm)
}

// A right blob that comes just when a wrong one is found is not taken for it.
func TestQuarantineAgainstPush(t *testing.T) {
	c := mustOpen(t)
	im := newImage(v1.MediaTypeImageLayer, "layer")
	mustPush(t, c, "x/a:1", im)
	layer := im.blobs[0]
	rot(t, c, layer.Digest)

	asks := make(chan struct{}, 10)
	other, err := open(hooked{c.fs, func() {}, func() { asks <- struct{}{} }}, c.Dir())
	if err != nil {
		t.Fatal(err)
	}
	tr := other.Transfer("x/a:1", TransferOptions{})
	defer tr.Close()
	if held, _, err := tr.Offer(t.Context(), im.blobs); err != nil || held[0] != 0 {
		t.Fatal(held, err)
	}
	<-asks
	w, err := tr.Begin(t.Context(), layer, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(im.bytes[layer.Digest]); err != nil {
		t.Fatal(err)
	}
	committed := make(chan error, 1)
	v, err := open(hooked{c.fs, func() {
		go func() { committed <- w.Commit(t.Context(), layer) }()
		select { // it has come as far as it gets
		case <-asks:
		case err := <-committed:
			committed <- err
		}
	}, func() {}}, c.Dir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(t.Context(), func(Result) {}); err != nil {
		t.Error(err)
	}
	if err := <-committed; err != nil {
		t.Error(err)
	}
	if lacks := c.missing(im.root()); len(lacks) > 0 {
		t.Errorf("after a commit that succeeded: %v", lacks)
	}
}
