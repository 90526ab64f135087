package sif

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

// source is the ring's Source with what it may add, which we must satisfy without
// importing it.
var _ interface {
	Blobs(context.Context) ([]v1.Descriptor, error)
	Open(context.Context, v1.Descriptor, int64) (io.ReadCloser, error)
	Unchanged(context.Context) error
	io.Closer
} = (*File)(nil)

func create(t *testing.T, path string, size int, opts CreateOptions) []byte {
	t.Helper()
	data := make([]byte, size)
	rng := rand.New(rand.NewPCG(uint64(size), 1))
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	if err := Create(path, bytes.NewReader(data), opts); err != nil {
		t.Fatal(err)
	}
	all, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// setup gives a SIF in a directory of its own, and the test a cache of its own.
func setup(t *testing.T) (path string, content []byte) {
	t.Helper()
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	path = filepath.Join(t.TempDir(), "app.sif")
	return path, create(t, path, 100_000, CreateOptions{Name: "rootfs"})
}

func open(t *testing.T, path string) *File {
	t.Helper()
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestCreate(t *testing.T) {
	dir := t.TempDir()
	opts := CreateOptions{Deterministic: true, Arch: "arm64", FS: FSRaw, Name: "x"}
	a := create(t, filepath.Join(dir, "a"), 5000, opts)
	if b := create(t, filepath.Join(dir, "b"), 5000, opts); !bytes.Equal(a, b) {
		t.Error("the same input gave two files")
	}
	img, err := inspect(a)
	if err != nil {
		t.Fatal(err)
	}
	p := img.PrimaryPartition()
	if p == nil || p.FS != FSRaw || p.Arch != "arm64" || p.Name != "x" || p.Size != 5000 || p.Offset%4096 != 0 || img.Arch != "arm64" ||
		img.Launch != "#!/usr/bin/env run-singularity\n" {
		t.Errorf("image %+v, partition %+v", img, p)
	}
	sameAsSylabs(t, a, img)
	if err := Create(filepath.Join(dir, "a"), strings.NewReader("x"), CreateOptions{}); !errors.Is(err, os.ErrExist) {
		t.Errorf("over another file: %v", err)
	}
	for name, err := range map[string]error{
		"arch":   Create(filepath.Join(dir, "c"), strings.NewReader("x"), CreateOptions{Arch: "vax"}),
		"reader": Create(filepath.Join(dir, "c"), io.MultiReader(strings.NewReader("x"), errReader{}), CreateOptions{}),
		"name":   Create(filepath.Join(dir, "c"), strings.NewReader("x"), CreateOptions{Name: strings.Repeat("x", 129)}),
	} {
		if _, statErr := os.Stat(filepath.Join(dir, "c")); err == nil || !errors.Is(statErr, os.ErrNotExist) {
			t.Errorf("%s: %v, left %v", name, err, statErr)
		}
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errors.New("no more") }

func TestFile(t *testing.T) {
	path, content := setup(t)
	ctx := t.Context()
	f := open(t, path)
	blobs, err := f.Blobs(ctx)
	if err != nil || len(blobs) != 3 {
		t.Fatalf("blobs %v, %v", blobs, err)
	}
	for i, mediaType := range []string{LayerMediaType, ConfigMediaType, v1.MediaTypeImageManifest} {
		r, err := f.Open(ctx, blobs[i], 0)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil || digest.FromBytes(data) != blobs[i].Digest || int64(len(data)) != blobs[i].Size || blobs[i].MediaType != mediaType {
			t.Errorf("blob %d: %+v, %d bytes, %v", i, blobs[i], len(data), err)
		}
		off := blobs[i].Size / 2
		if r, err = f.Open(ctx, blobs[i], off); err != nil {
			t.Fatal(err)
		}
		if rest, err := io.ReadAll(r); err != nil || !bytes.Equal(rest, data[off:]) {
			t.Errorf("blob %d from %d: %d bytes, %v", i, off, len(rest), err)
		}
		for _, off := range []int64{-1, blobs[i].Size + 1} {
			if _, err := f.Open(ctx, blobs[i], off); err == nil {
				t.Errorf("blob %d opened at %d", i, off)
			}
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	sum, err := f.Digest(ctx)
	if err != nil || sum != digest.FromBytes(content) || f.Size() != int64(len(content)) || f.Info().Name() != "app.sif" {
		t.Errorf("digest %s, size %d, %v", sum, f.Size(), err)
	}
	if _, err := f.Open(ctx, v1.Descriptor{Digest: digest.FromString("x")}, 0); err == nil {
		t.Error("opened a blob that is not there")
	}
	if err := f.Unchanged(ctx); err != nil {
		t.Error(err)
	}
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := open(t, path).Blobs(canceled); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

func TestArtifact(t *testing.T) {
	sum := digest.FromString("sif")
	config, manifest, err := Artifact(sum, 7, "a.sif")
	if err != nil || string(config) != "{}" {
		t.Fatalf("config %q, %v", config, err)
	}
	want := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",`+
		`"config":{"mediaType":"application/vnd.sylabs.sif.config.v1+json",`+
		`"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},`+
		`"layers":[{"mediaType":"application/vnd.sylabs.sif.layer.v1.sif","digest":"%s","size":7,`+
		`"annotations":{"org.opencontainers.image.title":"a.sif"}}]}`, sum)
	if string(manifest) != want {
		t.Errorf("got  %s\nwant %s", manifest, want)
	}
}

func TestOpenRefuses(t *testing.T) {
	path, content := setup(t)
	dir := filepath.Dir(path)
	file := func(name string, data []byte) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	onlyData := put(128+205, "\x03")(raw())
	for _, c := range []struct{ path, want string }{
		{filepath.Join(dir, "none"), "no such file"},
		{dir, "is a directory"},
		{fifo, "not a regular file"},
		{file("empty", nil), "is empty"},
		{file("text", []byte(strings.Repeat("hello", 100))), "no SIF magic"},
		{file("short", content[:len(content)-1]), "beyond the end"},
		{file("data", onlyData), "nothing to run"},
	} {
		f, err := Open(c.path)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.path) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, %v, want %q", c.path, f, err, c.want)
		}
	}
}

func ctime(path string) int64 {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0
	}
	return stateOf(&st).Ctime
}

func TestUnchanged(t *testing.T) {
	for name, change := range map[string]func(path string, content []byte) error{
		"appended": func(p string, c []byte) error { return os.WriteFile(p, append(c, 0), 0o600) },
		"replaced": func(p string, c []byte) error {
			return errors.Join(os.WriteFile(p+"2", c, 0o600), os.Rename(p+"2", p))
		},
		"removed":   func(p string, c []byte) error { return os.Remove(p) },
		"truncated": func(p string, c []byte) error { return os.Truncate(p, 10) },
		"same size and mtime": func(p string, c []byte) error {
			info, err := os.Stat(p)
			before := ctime(p)
			f, openErr := os.OpenFile(p, os.O_WRONLY, 0)
			if err = errors.Join(err, openErr); err != nil {
				return err
			}
			_, err = f.WriteAt([]byte{c[5000] + 1}, 5000)
			// File times have a grain: repeat until ctime has moved, as nobody can set it.
			for err == nil && ctime(p) == before {
				err = os.Chtimes(p, time.Time{}, info.ModTime())
			}
			return errors.Join(err, f.Close())
		},
	} {
		path, content := setup(t)
		f := open(t, path)
		if _, err := f.Blobs(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := change(path, content); err != nil {
			t.Fatal(err)
		}
		var changed *ChangedError
		if err := f.Unchanged(t.Context()); !errors.As(err, &changed) || changed.Path != path || !errkind.Has(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// later is a cache whose clock is an hour ahead, so that every file is settled.
func later(t *testing.T) *records {
	return &records{dir: filepath.Join(t.TempDir(), "digests"), now: func() time.Time { return time.Now().Add(time.Hour) }}
}

func TestRecords(t *testing.T) {
	path, content := setup(t)
	ctx := t.Context()
	want := digest.FromBytes(content)
	take := func(known *records) digest.Digest {
		t.Helper()
		sum, err := open(t, path).digest(ctx, known)
		if err != nil {
			t.Fatal(err)
		}
		return sum
	}
	stored := func(known *records) []byte {
		data, _ := os.ReadFile(known.file(path))
		return data
	}

	fresh := later(t)
	fresh.now = time.Now
	if take(fresh) != want || stored(fresh) != nil {
		t.Error("recorded the digest of a file that has just changed")
	}

	known := later(t)
	if take(known) != want || stored(known) == nil {
		t.Fatal("not recorded")
	}
	// Only a record in the same state is believed: make it say something else.
	marked := digest.FromString("marked")
	f := open(t, path)
	known.put(path, f.state, marked)
	if take(known) != marked {
		t.Error("the record was not used")
	}
	for i, change := range []func(*state){
		func(s *state) { s.Dev++ }, func(s *state) { s.Ino++ }, func(s *state) { s.Size++ },
		func(s *state) { s.Mtime++ }, func(s *state) { s.Ctime++ },
	} {
		s := f.state
		change(&s)
		known.put(path, s, marked)
		if take(known) != want {
			t.Errorf("believed the record of another state, %d", i)
		}
	}
	// A rotten record is none, whichever byte it is.
	good := stored(known)
	for i := range good {
		rotten := bytes.Clone(good)
		rotten[i] ^= 0x01
		if _, ok := parseRecord(rotten); ok {
			t.Errorf("believed a record with byte %d changed", i)
		}
	}
	for _, data := range [][]byte{nil, good[:len(good)/2], append(bytes.Clone(good), 'x'), []byte("\n\n")} {
		if err := os.WriteFile(known.file(path), data, 0o600); err != nil {
			t.Fatal(err)
		}
		if take(known) != want {
			t.Errorf("believed %q", data)
		}
	}
	if take(&records{now: known.now}) != want {
		t.Error("without a directory")
	}
	nowhere := &records{dir: filepath.Join(path, "no"), now: known.now}
	if take(nowhere) != want {
		t.Error("with a directory that cannot be")
	}
}

// The record of one path is not that of another.
func TestRecordOfOtherPath(t *testing.T) {
	known := later(t)
	known.put("/a", state{}, digest.FromString("a"))
	data, err := os.ReadFile(known.file("/a"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(known.file("/b"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	if sum, ok := known.get("/b", state{}); ok {
		t.Errorf("got %s", sum)
	}
}

func TestRecordsAreBounded(t *testing.T) {
	known := later(t)
	for i := range maxRecords + 50 {
		path := fmt.Sprint("/", i)
		known.put(path, state{}, digest.FromString(path))
		old := time.Unix(int64(i), 0)
		if err := os.Chtimes(known.file(path), old, old); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(known.dir)
	if err != nil || len(entries) != maxRecords {
		t.Errorf("%d records, %v", len(entries), err)
	}
	if _, ok := known.get(fmt.Sprint("/", maxRecords+49), state{}); !ok {
		t.Error("the newest is gone")
	}
	if _, ok := known.get("/0", state{}); ok {
		t.Error("the oldest is there")
	}
}

func FuzzRecord(f *testing.F) {
	f.Add(record{"/a", state{1, 2, 3, 4, 5}, digest.FromString("a")}.encode())
	f.Add([]byte("{}\n44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		rec, ok := parseRecord(data)
		if !ok {
			return
		}
		again, ok := parseRecord(rec.encode())
		if !ok || !reflect.DeepEqual(rec, again) {
			was, _ := json.Marshal(rec)
			t.Errorf("%s read again as %+v", was, again)
		}
	})
}

// Records are no part of the user's cache of images, which could not be made where they are.
func TestUserRecords(t *testing.T) {
	cache := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", cache)
	old := filepath.Join(cache, "dolly-img", "digests")
	if err := os.MkdirAll(old, 0o700); err != nil {
		t.Fatal(err)
	}
	dir := userRecords().dir
	if rel, err := filepath.Rel(filepath.Join(cache, "dolly-img"), dir); err != nil || !strings.HasPrefix(rel, "..") {
		t.Errorf("records are in %s", dir)
	}
	if _, err := os.Stat(old); !os.IsNotExist(err) {
		t.Errorf("those of earlier versions are left: %v", err)
	}
}
