package cache

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/ringtest"
)

func TestSink(t *testing.T) {
	im := newImage(mediaTypeSIFLayer, strings.Repeat("a SIF of some size ", 500_000))
	var bytes [][]byte
	for _, d := range im.blobs {
		bytes = append(bytes, im.bytes[d.Digest])
	}
	const ref = "localhost/a:latest"
	ringtest.TestSink(t, func(t *testing.T) ringtest.Sink {
		c := mustOpen(t)
		return ringtest.Sink{
			New:   func() ring.Sink { return c.Transfer(ref, TransferOptions{}) },
			Blobs: im.blobs,
			Bytes: bytes,
			Published: func(t *testing.T) bool {
				if d, err := c.Resolve(ref); err != nil || d.Digest != im.root().Digest {
					return false
				}
				bad, err := c.Verify(context.Background(), func(Result) {})
				return bad == 0 && err == nil
			},
			Left: func(t *testing.T) (left []string) {
				left = append(left, names(t, filepath.Join(c.Dir(), "ingest"))...)
				return append(left, names(t, filepath.Join(c.Dir(), "leases"))...)
			},
		}
	})
}

var _ ring.Preparer = (*Transfer)(nil)

// Two transfers of the same image at once: both succeed, one inode stays.
func TestTwoTransfers(t *testing.T) {
	c, ctx := mustOpen(t), context.Background()
	im := newImage(mediaTypeSIFLayer, "a SIF")
	d := im.blobs[0]
	first, second := c.Transfer("localhost/a:1", TransferOptions{}), c.Transfer("localhost/a:2", TransferOptions{})
	defer first.Close()
	defer second.Close()
	var infos []os.FileInfo
	path, _ := c.BlobPath(d.Digest)
	for _, tr := range []*Transfer{first, second} {
		if _, err := tr.Begin(ctx, d, 0); err != nil {
			t.Fatal(err)
		}
	}
	for _, tr := range []*Transfer{first, second} {
		w, err := tr.Begin(ctx, d, 0) // again, as after a fault
		if err != nil {
			t.Fatal(err)
		}
		w.Write(im.bytes[d.Digest])
		if err := w.Commit(ctx, d); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		infos = append(infos, info)
	}
	if !os.SameFile(infos[0], infos[1]) {
		t.Error("the second replaced the first one's file")
	}
	if n := names(t, filepath.Join(c.Dir(), "ingest")); len(n) != 0 {
		t.Errorf("left in ingest: %v", n)
	}
}

func TestBadTransfers(t *testing.T) {
	c, ctx := mustOpen(t), context.Background()
	tr := c.Transfer("localhost/a:1", TransferOptions{})
	defer tr.Close()
	if _, _, err := tr.Offer(ctx, []v1.Descriptor{{Digest: "sha256:../../../etc/passwd"}}); err == nil {
		t.Error("offer of a path worked")
	}
	d := v1.Descriptor{Digest: digest.FromString("x"), Size: 1}
	if _, err := tr.Begin(ctx, d, 1); err == nil {
		t.Error("begin in the middle of nothing worked")
	}
	if _, err := tr.Begin(ctx, v1.Descriptor{Digest: d.Digest, Size: 1 << 60}, 0); err == nil || !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EFBIG) {
		t.Errorf("begin of an exabyte: %v", err)
	}
	w, err := tr.Begin(ctx, d, 0)
	if err != nil {
		t.Fatal(err)
	}
	w.Write([]byte("x"))
	for _, final := range []v1.Descriptor{
		{Digest: digest.FromString("y"), Size: 1},
		{Digest: d.Digest, Size: 2},
		{Size: 1},
	} {
		if err := w.Commit(ctx, final); err == nil {
			t.Errorf("commit as %v worked", final)
		}
	}
	if _, err := tr.Open(ctx, v1.Descriptor{Digest: digest.FromString("other")}, 0); err == nil {
		t.Error("a blob that is not there was opened")
	}
	if err := tr.Publish(ctx); err == nil {
		t.Error("published without a blob")
	}
}

// Another process that holds the lock is waited for, not for ever.
func TestIndexLock(t *testing.T) {
	c := mustOpen(t)
	other, err := Open(c.Dir())
	if err != nil {
		t.Fatal(err)
	}
	unlock, err := other.lockIndex(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := c.lockIndex(gone); err == nil {
		t.Error("locked twice")
	}
	done := make(chan error)
	go func() {
		_, err := push(c, "localhost/a:latest", newImage(mediaTypeSIFLayer, "x"))
		done <- err
	}()
	unlock()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
