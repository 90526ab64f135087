package cache

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestPushListPath(t *testing.T) {
	c := mustOpen(t)
	sif := newImage(mediaTypeSIFLayer, "a SIF")
	oci := newImage(v1.MediaTypeImageLayer, "a layer")
	if mustPush(t, c, "localhost/a:latest", sif) {
		t.Error("a first push says it is in place")
	}
	if !mustPush(t, c, "localhost/a:latest", sif) {
		t.Error("a second push says it is not in place")
	}
	mustPush(t, c, "docker.io/library/b:1", oci)
	mustPush(t, c, "localhost/b:latest", oci)

	list, err := c.List()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range list {
		if e.Err != nil || e.LastUsed.IsZero() || e.Size <= 100 {
			t.Errorf("%+v", e)
		}
		got = append(got, e.Ref+" "+e.Kind)
	}
	want := "localhost/a:latest sif, docker.io/library/b:1 image, localhost/b:latest image"
	if s := strings.Join(got, ", "); s != want {
		t.Errorf("list is %s, want %s", s, want)
	}

	path, err := c.Path("localhost/a:latest")
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(path); string(b) != "a SIF" {
		t.Errorf("%s holds %q", path, b)
	}
	if info, _ := os.Stat(path); info.Mode() != 0o444 {
		t.Errorf("mode of a blob is %v", info.Mode())
	}
	if path, err = c.Path("localhost/b:latest"); path != "oci:"+c.Dir()+":localhost/b:latest" {
		t.Errorf("path is %s, %v", path, err)
	}
	if _, err := c.Path("nothing"); !errors.Is(err, ErrNotFound) {
		t.Errorf("path of nothing: %v", err)
	}

	mustPush(t, c, "localhost/a:latest", oci) // the reference moves
	if d, err := c.Resolve("localhost/a:latest"); err != nil || d.Digest != oci.root().Digest {
		t.Errorf("after it moved: %v, %v", d, err)
	}
	for _, dir := range []string{"ingest", "leases"} {
		if n := names(t, filepath.Join(c.Dir(), dir)); len(n) > 0 {
			t.Errorf("left in %s: %v", dir, n)
		}
	}
	if bad, err := c.Verify(context.Background(), func(Result) {}); bad != 0 || err != nil {
		t.Errorf("verify: %d bad, %v", bad, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, tt := range []struct{ name, file, content, want string }{
		{"foreign directory", "letter.txt", "dear", "not a cache"},
		{"version", "oci-layout", `{"imageLayoutVersion":"2.0.0"}`, "version"},
		{"layout is no JSON", "oci-layout", `x`, "invalid"},
		{"index missing", "oci-layout", layout, "index.json"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, tt.file), []byte(tt.content), 0o644); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error is %v, want %s", err, tt.want)
			}
		})
	}
}

func TestBadIndexStays(t *testing.T) {
	c := mustOpen(t)
	name := filepath.Join(c.Dir(), "index.json")
	for _, bad := range []string{"", "{", `{"schemaVersion":1}`,
		`{"schemaVersion":2,"manifests":[{"digest":"sha256:../../x","size":1}]}`,
		`{"schemaVersion":2,"manifests":[{"digest":"` + digest.FromString("").String() + `","size":-1}]}`} {
		if err := os.WriteFile(name, []byte(bad), 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := push(c, "localhost/a:latest", newImage(mediaTypeSIFLayer, "x"))
		if err == nil || !strings.Contains(err.Error(), "index.json") {
			t.Errorf("push over %q: %v", bad, err)
		}
		if _, err := Open(c.Dir()); err == nil {
			t.Errorf("open over %q worked", bad)
		}
		if b, _ := os.ReadFile(name); string(b) != bad {
			t.Errorf("index.json became %q", b)
		}
	}
}

func TestTouchedBlobIsNotTrusted(t *testing.T) {
	c := mustOpen(t)
	im := newImage(mediaTypeSIFLayer, "a SIF")
	mustPush(t, c, "localhost/a:latest", im)
	path, _ := c.BlobPath(im.blobs[0].Digest)
	offer := func() int64 {
		t.Helper()
		tr := c.Transfer("localhost/a:latest", TransferOptions{})
		defer tr.Close()
		held, _, err := tr.Offer(context.Background(), im.blobs)
		if err != nil {
			t.Fatal(err)
		}
		return held[0]
	}
	if err := os.Chmod(path, 0o644); err != nil { // the ctime changes, the bytes do not
		t.Fatal(err)
	}
	if _, ok := c.trusted(im.blobs[0].Digest); ok {
		t.Error("trusted after a chmod")
	}
	if n := offer(); n != im.blobs[0].Size {
		t.Errorf("held %d of a right blob", n)
	}
	if _, ok := c.trusted(im.blobs[0].Digest); !ok {
		t.Error("not trusted after it was hashed")
	}
	if err := os.WriteFile(path, []byte("b SIF"), 0o644); err != nil {
		t.Fatal(err)
	}
	if n := offer(); n != 0 {
		t.Errorf("held %d of a wrong blob", n)
	}
	bad, err := c.Verify(context.Background(), func(r Result) {
		if (r.Err != nil) != (r.Digest == im.blobs[0].Digest) {
			t.Errorf("%+v", r)
		}
	})
	if bad != 2 || err != nil { // the blob, which is moved away, and the image that lacks it then
		t.Errorf("verify: %d bad, %v", bad, err)
	}
	mustPush(t, c, "localhost/a:latest", im) // replaces it
	if b, _ := os.ReadFile(path); string(b) != "a SIF" {
		t.Errorf("after another push: %q", b)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if bad, _ := c.Verify(context.Background(), func(Result) {}); bad != 1 {
		t.Errorf("verify of a missing blob: %d bad", bad)
	}
}

func TestIncompleteImageIsNotPublished(t *testing.T) {
	c := mustOpen(t)
	im := newImage(mediaTypeSIFLayer, "a SIF")
	im.blobs = im.blobs[1:]
	if _, err := push(c, "localhost/a:latest", im); !errors.Is(err, ErrNotFound) {
		t.Errorf("push without its layer: %v", err)
	}
	im.blobs = im.blobs[:1]
	if _, err := push(c, "localhost/a:latest", im); err == nil {
		t.Error("push without a manifest worked")
	}
	if _, err := push(c, "a b", im); err == nil {
		t.Error("push as \"a b\" worked")
	}
	if list, err := c.List(); len(list) != 0 || err != nil {
		t.Errorf("list: %v, %v", list, err)
	}
}

// A digest that Begin does not know is named by Commit.
func TestUnnamedBlob(t *testing.T) {
	c, ctx := mustOpen(t), context.Background()
	im := newImage(mediaTypeSIFLayer, "a SIF")
	tr := c.Transfer("localhost/a:latest", TransferOptions{})
	defer tr.Close()
	d := v1.Descriptor{Size: -1}
	w, err := tr.Begin(ctx, d, 0)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, "a SIF")
	if err := w.Commit(ctx, im.blobs[0]); err != nil {
		t.Fatal(err)
	}
	r, err := tr.Open(ctx, d, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if b, err := io.ReadAll(r); string(b) != "SIF" || err != nil {
		t.Errorf("replay: %q, %v", b, err)
	}
}

func TestLease(t *testing.T) {
	c := mustOpen(t)
	im := newImage(mediaTypeSIFLayer, "a SIF")
	tr := c.Transfer("localhost/a:latest", TransferOptions{})
	if _, _, err := tr.Offer(context.Background(), im.blobs); err != nil {
		t.Fatal(err)
	}
	other, err := Open(c.Dir()) // as another process does: must leave the lease alone
	if err != nil {
		t.Fatal(err)
	}
	set, err := other.leased()
	if err != nil || len(set) != len(im.blobs) {
		t.Errorf("leased: %v, %v", set, err)
	}
	if err := tr.Close(); err != nil {
		t.Fatal(err)
	}
	if set, err := other.leased(); err != nil || len(set) != 0 {
		t.Errorf("leased after the end: %v, %v", set, err)
	}
}

func TestSweep(t *testing.T) {
	c := mustOpen(t)
	stale := filepath.Join(c.Dir(), "ingest", "STALE")
	if err := os.WriteFile(stale, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	tr := c.Transfer("localhost/a:latest", TransferOptions{})
	defer tr.Close()
	if _, err := tr.Begin(context.Background(), v1.Descriptor{Size: 1, Digest: digest.FromString("x")}, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(c.Dir()); err != nil {
		t.Fatal(err)
	}
	if n := names(t, filepath.Join(c.Dir(), "ingest")); len(n) != 1 || n[0] == "STALE" {
		t.Errorf("ingest holds %v, want the running one", n)
	}
}

func TestPlaced(t *testing.T) {
	c := mustOpen(t)
	path := filepath.Join(t.TempDir(), "a.sif")
	now := func() fs.FileInfo {
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	placed := func(d digest.Digest) bool {
		was, ok := c.PlacedAs(path, now())
		return ok && was == d
	}
	d, other := digest.FromString("a"), digest.FromString("b")
	os.WriteFile(path, []byte("a"), 0o644)
	if placed(d) {
		t.Error("a file without a record is placed")
	}
	if err := c.RecordPlaced(path, now(), d); err != nil {
		t.Fatal(err)
	}
	if !placed(d) || placed(other) {
		t.Error("the record does not fit")
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if placed(d) {
		t.Error("placed after a chmod")
	}
	if err := c.RecordPlaced(path, now(), other); err != nil || !placed(other) {
		t.Errorf("recorded again: %v", err)
	}
	os.Rename(path, path+"2")
	os.WriteFile(path, []byte("a"), 0o600)
	if placed(other) {
		t.Error("another file is placed")
	}
}

func TestLocalRef(t *testing.T) {
	for _, tt := range []struct{ file, want string }{
		{"sle15.sif", "sle15"},
		{"/data/SLE 15 (SP6).sif", "sle-15-sp6"},
		{"app-1.2.tar.gz", "app-1.2"},
		{"app-v1.2", "app-v1.2"},
		{"a__b..c", "a-b-c"},
		{"a_b.simg", "a_b"},
		{".sif", "image"},
		{"--x--", "x"},
		{"größe.img", "gr-e"},
		{strings.Repeat("x", 300), strings.Repeat("x", 128)},
	} {
		if got := LocalRef(tt.file); got != "localhost/"+tt.want+":latest" {
			t.Errorf("LocalRef(%q) = %s, want %s", tt.file, got, tt.want)
		} else if err := CheckRef(got); err != nil {
			t.Error(err)
		}
	}
}

// skopeo reads the cache as it lies on disk.
func TestSkopeo(t *testing.T) {
	if _, err := exec.LookPath("skopeo"); err != nil {
		if os.Getenv("DOLLY_IMG_COUNTERPARTS") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	c := mustOpen(t)
	im := newImage(v1.MediaTypeImageLayer, strings.Repeat("\x00", 1024)) // an empty tar
	ref := LocalRef("My Image.tar")
	mustPush(t, c, ref, im)
	mustPush(t, c, "docker.io/library/b:1", im)
	for _, ref := range []string{ref, "docker.io/library/b:1"} {
		path, err := c.Path(ref)
		if err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("skopeo", "inspect", "--format", "{{.Digest}}", path).CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != im.root().Digest.String() {
			t.Errorf("skopeo inspect %s: %s, %v", path, out, err)
		}
	}
}
