package cache

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/cache/durable"
	"github.com/dolly-img/dolly-img/ring/ringtest/crashfs"
)

// An image of many small blobs is mostly system calls. What each blob costs is
// held here: asked for, made, written, looked at, synced, renamed, looked at for
// its record, the record made and written, looked at before the publication.
func TestOperationsPerBlob(t *testing.T) {
	ops := func(blobs int) int {
		f := crashfs.New()
		c, err := open(f, "cache")
		if err != nil {
			t.Fatal(err)
		}
		im := newImage(v1.MediaTypeImageLayer, "a layer")
		var more []v1.Descriptor
		for i := range blobs {
			b := fmt.Append(nil, "blob ", i)
			d := v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: digest.FromBytes(b), Size: int64(len(b))}
			im.bytes[d.Digest] = b
			more = append(more, d)
		}
		im.blobs = append(more, im.blobs...)
		before := f.Ops()
		mustPush(t, c, "localhost/a:latest", im)
		return f.Ops() - before
	}
	if n := (ops(30) - ops(10)) / 20; n > 10 {
		t.Errorf("%d operations for each blob, want 10", n)
	}
}

// A part lives as long as its transfer, seen from another process.
func TestSweepParts(t *testing.T) {
	c, ctx := mustOpen(t), context.Background()
	d := v1.Descriptor{Size: 1, Digest: digest.FromString("x")}
	begin := func() *Transfer {
		tr := c.Transfer("localhost/a:latest", TransferOptions{})
		if _, err := tr.Begin(ctx, d, 0); err != nil {
			t.Fatal(err)
		}
		return tr
	}
	left := func() []string {
		if _, err := Open(c.Dir()); err != nil {
			t.Fatal(err)
		}
		return names(t, filepath.Join(c.Dir(), "ingest"))
	}
	killed, gone, alive := begin(), begin(), begin()
	killed.lease.f.Close() // what the kernel does for a killed process
	gone.lease.close(c.fs) // and its lease was swept before
	if n := left(); len(n) != 1 || "ingest/"+n[0] != alive.parts[0].name {
		t.Errorf("ingest holds %v, want %s", n, alive.parts[0].name)
	}
	if err := alive.Close(); err != nil {
		t.Fatal(err)
	}
	if n := left(); len(n) != 0 {
		t.Errorf("ingest holds %v", n)
	}
	if n := names(t, filepath.Join(c.Dir(), "leases")); len(n) != 0 {
		t.Errorf("leases holds %v", n)
	}
	if _, err := alive.Begin(ctx, d, 0); err == nil {
		t.Error("a closed transfer begins a blob")
	}
}

// Blobs are for every user of the node, whatever the daemon's umask.
func TestModeUnderUmask(t *testing.T) {
	c := mustOpen(t)
	defer syscall.Umask(syscall.Umask(0o077))
	im := newImage(mediaTypeSIFLayer, "a SIF")
	mustPush(t, c, "localhost/a:latest", im)
	path, _ := c.BlobPath(im.blobs[0].Digest)
	if info, err := os.Stat(path); err != nil || info.Mode() != blobMode {
		t.Errorf("mode of a blob is %v, %v", info.Mode(), err)
	}
}

// Of two transfers of one blob the second leaves the file of the first: its inode
// is on record, and a wrong file is replaced.
func TestTwoTransfersOfABlob(t *testing.T) {
	c, ctx := mustOpen(t), context.Background()
	d := v1.Descriptor{Size: 5, Digest: digest.SHA512.FromString("a SIF")} // nor is its directory there
	path, _ := c.BlobPath(d.Digest)
	receive := func(tr *Transfer) os.FileInfo {
		t.Helper()
		w, err := tr.Begin(ctx, d, 0)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, "a SIF")
		if err := w.Commit(ctx, d); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := c.trusted(d.Digest); !ok {
			t.Error("no record fits")
		}
		return info
	}
	a, b := c.Transfer("localhost/a:latest", TransferOptions{}), c.Transfer("localhost/b:latest", TransferOptions{})
	defer a.Close()
	defer b.Close()
	first := receive(a)
	if second := receive(b); !os.SameFile(first, second) {
		t.Error("the second transfer replaced a trusted blob")
	}
	os.Chmod(path, 0o644)
	os.WriteFile(path, []byte("wrong"), 0o644)
	if third := receive(a); os.SameFile(first, third) {
		t.Error("a wrong blob was left")
	}
	if b, _ := os.ReadFile(path); string(b) != "a SIF" {
		t.Errorf("the blob is %q", b)
	}
}

// unreadable is a file system on which no file can be read.
type unreadable struct{ durable.FS }

func (u unreadable) OpenFile(name string, flag int, perm fs.FileMode) (durable.File, error) {
	f, err := u.FS.OpenFile(name, flag, perm)
	if err == nil && strings.HasPrefix(name, "blobs/") {
		f = brokenFile{f}
	}
	return f, err
}

type brokenFile struct{ durable.File }

func (brokenFile) ReadAt([]byte, int64) (int, error) { return 0, syscall.EIO }

// A blob that a disk no longer reads is not held: the next transfer brings it again.
func TestVerifyUnreadable(t *testing.T) {
	c := mustOpen(t)
	im := newImage(mediaTypeSIFLayer, "a SIF")
	mustPush(t, c, "localhost/a:latest", im)
	broken := Cache{dir: c.dir, fs: unreadable{c.fs}}
	if bad, err := broken.Verify(context.Background(), func(Result) {}); bad < len(im.blobs) || err != nil {
		t.Errorf("verify: %d bad, %v", bad, err)
	}
	if _, ok := c.trusted(im.blobs[0].Digest); ok {
		t.Error("a blob that cannot be read is trusted")
	}
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	mustPush(t, c, "localhost/a:latest", im)
	if _, err := c.Verify(cancelled, func(Result) {}); err == nil {
		t.Error("verify did not end")
	}
	if _, ok := c.trusted(im.blobs[0].Digest); !ok {
		t.Error("a blob is not trusted as nobody waited for it to be read")
	}
}

func TestValidate(t *testing.T) {
	sum := strings.Repeat("0123456789abcdef", 4)
	for _, d := range []string{"", "sha256:", "sha256:" + sum, "sha256:" + sum + "0", "sha256:" + sum[1:], "sha256:A" + sum[1:],
		"sha256:/" + sum[1:], "sha256:" + sum + "\n", "sha512:" + sum, "sha512:" + sum + sum, "md5:" + sum, "sha256" + sum} {
		if got, want := validate(digest.Digest(d)), digest.Digest(d).Validate(); (got == nil) != (want == nil) {
			t.Errorf("%q: %v, want %v", d, got, want)
		}
	}
}
