package oci

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

// TestMain keeps whatever the user has configured out of the tests.
func TestMain(m *testing.M) {
	home, err := os.MkdirTemp("", "oci-test")
	if err != nil {
		panic(err)
	}
	for _, k := range []string{"HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "DOCKER_CONFIG"} {
		os.Setenv(k, home)
	}
	for _, k := range []string{"REGISTRY_AUTH_FILE", "CONTAINERS_REGISTRIES_CONF", "HTTP_PROXY", "http_proxy"} {
		os.Unsetenv(k)
	}
	firstDelay = time.Millisecond
	code := m.Run()
	os.RemoveAll(home)
	os.Exit(code)
}

// img is a small image: its blobs by digest, and their order.
type img struct {
	blobs  map[digest.Digest][]byte
	list   []v1.Descriptor
	config v1.Descriptor
	layers []v1.Descriptor
	root   v1.Descriptor
}

func (m *img) put(mediaType string, b []byte) v1.Descriptor {
	d := v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	m.blobs[d.Digest] = b
	m.list = append(m.list, d)
	return d
}

func newImg(layers ...[]byte) *img { return imgFor("linux/"+runtime.GOARCH, layers...) }

func imgFor(platform string, layers ...[]byte) *img {
	m := &img{blobs: map[digest.Digest][]byte{}}
	var diffs []digest.Digest
	for _, l := range layers {
		m.layers = append(m.layers, m.put(v1.MediaTypeImageLayer, l))
		diffs = append(diffs, digest.FromBytes(l))
	}
	os, arch, _ := strings.Cut(platform, "/")
	config := v1.Image{Platform: v1.Platform{OS: os, Architecture: arch}, RootFS: v1.RootFS{Type: "layers", DiffIDs: diffs}}
	m.config = m.put(v1.MediaTypeImageConfig, asJSON(config))
	m.root = m.put(v1.MediaTypeImageManifest, asJSON(v1.Manifest{
		Versioned: versioned, MediaType: v1.MediaTypeImageManifest, Config: m.config, Layers: m.layers}))
	m.root.Platform = &v1.Platform{OS: os, Architecture: arch}
	return m
}

// want lists the bytes of the blobs in travelling order.
func (m *img) want() (all [][]byte) {
	for _, d := range m.list {
		all = append(all, m.blobs[d.Digest])
	}
	return all
}

// files are those of an OCI layout with the image, and what index.json says of it.
func (m *img) files(entries ...v1.Descriptor) map[string][]byte {
	if entries == nil {
		entries = []v1.Descriptor{m.root}
	}
	files := map[string][]byte{
		v1.ImageLayoutFile: []byte(`{"imageLayoutVersion":"1.0.0"}`),
		v1.ImageIndexFile:  asJSON(v1.Index{Versioned: versioned, Manifests: entries}),
	}
	for d, b := range m.blobs {
		files[blobFile(v1.Descriptor{Digest: d})] = b
	}
	return files
}

func asJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// noise is what does not compress.
func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(uint64(n), 7))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func writeDir(t testing.TB, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, b := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, b, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// regular are the entries of a tar of the files, those with the longest names first: what
// describes the others is then behind them.
func regular(files map[string][]byte) (list []tarEntry) {
	names := slices.SortedFunc(maps.Keys(files), func(a, b string) int {
		if c := len(b) - len(a); c != 0 {
			return c
		}
		return strings.Compare(a, b)
	})
	for _, name := range names {
		list = append(list, tarEntry{Header: tar.Header{Name: name, Typeflag: tar.TypeReg}, data: files[name]})
	}
	return list
}

type tarEntry struct {
	tar.Header
	data []byte
}

func link(name, to string, flag byte) tarEntry {
	return tarEntry{Header: tar.Header{Name: name, Linkname: to, Typeflag: flag}}
}

func asTar(entries ...tarEntry) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		e.Size, e.Mode = int64(len(e.data)), 0o644
		if err := w.WriteHeader(&e.Header); err != nil {
			panic(err)
		}
		if _, err := w.Write(e.data); err != nil {
			panic(err)
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func asGzip(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write(b)
	_ = w.Close()
	return out.Bytes()
}

func asZstd(b []byte) []byte {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		panic(err)
	}
	return w.EncodeAll(b, nil)
}

func writeFile(t testing.TB, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func mustOpen(t testing.TB, name string, o Options) *Image {
	t.Helper()
	i, err := Open(context.Background(), name, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { i.Close() })
	return i
}

// read is a blob from off on, and the error that ended it.
func read(i *Image, d v1.Descriptor, off int64) ([]byte, error) {
	rc, err := i.Open(context.Background(), d, off)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	return io.ReadAll(rc)
}

// check compares everything the image has with what it should have.
func (m *img) check(t testing.TB, i *Image) {
	t.Helper()
	if i.Root().Digest != m.root.Digest || i.Root().Size != m.root.Size {
		t.Errorf("root is %s, want %s", i.Root().Digest, m.root.Digest)
	}
	blobs, err := i.Blobs(context.Background())
	if err != nil || len(blobs) != len(m.list) {
		t.Fatalf("blobs %v, %v, want %v", blobs, err, m.list)
	}
	for n, d := range blobs {
		if w := m.list[n]; d.Digest != w.Digest || d.Size != w.Size || d.MediaType != w.MediaType {
			t.Errorf("blob %d is %v, want %v", n, d, w)
		}
		if b, err := read(i, d, 0); err != nil || !bytes.Equal(b, m.blobs[d.Digest]) {
			t.Errorf("blob %d has %d bytes that are not its own, %v", n, len(b), err)
		}
	}
}

// fails is a test of an error: that there is one, and what it says.
func fails(t testing.TB, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error is %v, want one with %q", err, want)
	}
}

func openFails(t testing.TB, name string, o Options, want string) error {
	t.Helper()
	i, err := Open(context.Background(), name, o)
	if err == nil {
		i.Close()
	}
	fails(t, err, want)
	return err
}

// kindTold is the kind of an error and what it is about, "" for one without.
func kindTold(err error) string {
	kind, about := errkind.Of(err)
	return strings.TrimSpace(string(kind) + " " + strings.Join(about, " "))
}
