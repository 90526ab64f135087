package oci

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/ringtest"
)

// savedArchive is what docker save writes, of layers that unpack to plain in the config.
func savedArchive(plain, layers [][]byte) []byte {
	image := dockerImage{Config: "config", RepoTags: []string{"app:1"}}
	entries := []tarEntry{file("config", dockerConfig(plain...))}
	for i, l := range layers {
		name := string(rune('a'+i)) + ".tar"
		image.Layers = append(image.Layers, name)
		entries = append(entries, file(name, l))
	}
	return asTar(append(entries, file("manifest.json", asJSON([]dockerImage{image})))...)
}

// readAsSent reads an image as the ring does: each blob, then whether all is right. A blob that
// was given to its end is counted.
func readAsSent(s Source) (whole int, err error) {
	ctx := context.Background()
	blobs, err := s.Blobs(ctx)
	if err != nil {
		return 0, err
	}
	for _, d := range blobs {
		rc, err := s.(ring.Unverified).OpenUnverified(ctx, d, 0) // as the ring reads
		if err != nil {
			return whole, err
		}
		n, err := io.Copy(io.Discard, rc)
		rc.Close()
		if n == d.Size {
			whole++
		}
		if err != nil {
			return whole, err
		}
	}
	if u, ok := s.(ring.Unchanged); ok {
		return whole, u.Unchanged(ctx)
	}
	return whole, nil
}

func flipped(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 1
	return b
}

// memory is Known for tests.
type memory struct {
	mu    sync.Mutex
	facts map[digest.Digest]digest.Digest
	asked int
}

func (m *memory) LayerChecked(blob, diff digest.Digest) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked++
	return m.facts[blob] == diff
}

func (m *memory) all() map[digest.Digest]digest.Digest {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.facts)
}

func (m *memory) RecordLayer(blob, diff digest.Digest) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.facts[blob] = diff
}

// Nothing but diff_ids names the layers of docker save. Reported as containers/podman 18193:
// damaged compressed layers were taken as they were.
func TestSavedLayersAreChecked(t *testing.T) {
	a, b := noise(300_000), bytes.Repeat([]byte("b"), 100_000)
	ga, gb, za := asGzip(a), asGzip(b), asZstd(a)
	for name, c := range map[string]struct {
		layers [][]byte
		want   string // "": all is right
	}{
		"gzip and zstd":           {[][]byte{za, gb}, ""},
		"several gzip members":    {[][]byte{append(asGzip(a[:1000]), asGzip(a[1000:])...), gb}, ""},
		"gzip, a bit flipped":     {[][]byte{flipped(ga, len(ga)/2), gb}, "layer sha256:"},
		"gzip, its checksum":      {[][]byte{flipped(ga, len(ga)-6), gb}, "cannot be unpacked"},
		"gzip, cut short":         {[][]byte{ga[:len(ga)/2], gb}, "cannot be unpacked"},
		"gzip, its end missing":   {[][]byte{ga[:len(ga)-1], gb}, "unexpected EOF"},
		"gzip, rubbish behind":    {[][]byte{append(bytes.Clone(ga), "rubbish"...), gb}, "cannot be unpacked"},
		"zstd, a bit flipped":     {[][]byte{flipped(za, len(za)/2), gb}, "layer sha256:"},
		"zstd, cut short":         {[][]byte{za[:len(za)-4], gb}, "cannot be unpacked"},
		"the last one, flipped":   {[][]byte{za, flipped(gb, len(gb)/2)}, "layer sha256:"},
		"in another order":        {[][]byte{gb, ga}, "but the config of the image says sha256:"},
		"twice the same":          {[][]byte{ga, ga}, "unpacks to sha256:"},
		"only the head of a gzip": {[][]byte{{0x1f, 0x8b, 8, 0}, gb}, "cannot be unpacked"},
		"well packed, other file": {[][]byte{asGzip(flipped(a, 5)), gb}, "unpacks to sha256:"},
	} {
		raw := savedArchive([][]byte{a, b}, c.layers)
		for kind, raw := range map[string][]byte{"tar": raw, "gzip": asGzip(raw)} {
			t.Run(name+" in "+kind, func(t *testing.T) {
				i := mustOpen(t, "docker-archive:"+writeFile(t, "a", raw), Options{})
				known := &memory{facts: map[digest.Digest]digest.Digest{}}
				o := CheckOptions{Known: func() Known { return known }}
				s, err := i.Check(t.Context(), i, o)
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				whole, err := readAsSent(s)
				blobs, _ := i.Blobs(t.Context())
				if c.want == "" {
					if err != nil || whole != len(blobs) || len(known.all()) != len(c.layers) {
						t.Fatalf("%d of %d blobs, %d layers remembered, %v", whole, len(blobs), len(known.all()), err)
					}
					if again, err := i.Check(t.Context(), i, o); again != Source(i) || err != nil {
						t.Errorf("what was right is checked again: %v", err)
					}
					return
				}
				fails(t, err, c.want)
				var w interface{ Wrong() bool }
				if !errors.As(err, &w) || !w.Wrong() || kindTold(err) == "" || !strings.Contains(err.Error(), "image docker-archive:") {
					t.Errorf("%v: kept by the nodes, without a hint, or without the image", err)
				}
				for d, diff := range known.all() {
					rc, err := i.Open(t.Context(), v1.Descriptor{Digest: d, Size: sizeOf(blobs, d)}, 0)
					if err != nil {
						t.Fatal(err)
					}
					if got, err := unpackedDigest(t.Context(), rc, digest.SHA256); got != diff || err != nil {
						t.Errorf("%s was remembered as %s, it is %s, %v", d, diff, got, err)
					}
					rc.Close()
				}
				if whole == len(blobs) {
					t.Error("all of it was given away")
				}
			})
		}
	}
}

func sizeOf(list []v1.Descriptor, d digest.Digest) int64 {
	for _, b := range list {
		if b.Digest == d {
			return b.Size
		}
	}
	return -1
}

// A damaged layer is never given away whole, and a layer that nobody is sent is checked, too.
func TestLastByteWaits(t *testing.T) {
	a, b := noise(200_000), noise(300_000)
	bad := flipped(asGzip(b), 150_000)
	path := "docker-archive:" + writeFile(t, "a", savedArchive([][]byte{a, b}, [][]byte{asGzip(a), bad}))
	i := mustOpen(t, path, Options{})
	s, err := i.Check(t.Context(), i, CheckOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	blobs, _ := i.Blobs(t.Context())
	for _, off := range []int64{0, 1000, blobs[1].Size - 1} {
		for _, open := range []func(context.Context, v1.Descriptor, int64) (io.ReadCloser, error){s.Open, s.(ring.Unverified).OpenUnverified} {
			if rc, err := open(t.Context(), blobs[1], off); err == nil {
				got, err := io.ReadAll(rc)
				if rc.Close(); err == nil || int64(len(got)) >= blobs[1].Size-off {
					t.Errorf("from %d: %d of %d bytes, %v", off, len(got), blobs[1].Size-off, err)
				}
			}
		}
	}

	i = mustOpen(t, path, Options{})
	if s, err = i.Check(t.Context(), i, CheckOptions{}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	fails(t, s.(ring.Unchanged).Unchanged(t.Context()), "layer "+blobs[1].Digest.String())
}

// It stays a source as the ring wants it.
func TestCheckedSource(t *testing.T) {
	a, b := noise(70_000), noise(200_000)
	layers := [][]byte{asGzip(a), asZstd(b)}
	raw := savedArchive([][]byte{a, b}, layers)
	manifest := mustOpen(t, "docker-archive:"+writeFile(t, "a", raw), Options{})
	blobs, _ := manifest.Blobs(t.Context())
	root, err := read(manifest, blobs[len(blobs)-1], 0)
	if err != nil {
		t.Fatal(err)
	}
	ringtest.TestSource(t, func(t *testing.T) ring.Source {
		i := mustOpen(t, "docker-archive:"+writeFile(t, "a", raw), Options{})
		s, err := i.Check(t.Context(), i, CheckOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}, layers[0], layers[1], dockerConfig(a, b), root)
}

// packed is newImg with layers that are compressed, and diffs in its config.
func packed(mediaType string, diffs [][]byte, layers ...[]byte) *img {
	m := &img{blobs: map[digest.Digest][]byte{}}
	for _, l := range layers {
		m.layers = append(m.layers, m.put(mediaType, l))
	}
	m.config = m.put(v1.MediaTypeImageConfig, dockerConfig(diffs...))
	m.root = m.put(v1.MediaTypeImageManifest, asJSON(v1.Manifest{
		Versioned: versioned, MediaType: v1.MediaTypeImageManifest, Config: m.config, Layers: m.layers}))
	return m
}

// A diff_id is of the unpacked bytes: one that names the compressed ones is wrong, though it is the digest of the
// file in the archive.
func TestDiffIDOfCompressedBytes(t *testing.T) {
	a, b := noise(100_000), []byte("b")
	for _, layer := range [][]byte{asGzip(a), asZstd(a)} {
		i := mustOpen(t, "docker-archive:"+writeFile(t, "a", savedArchive([][]byte{b, layer}, [][]byte{b, layer})), Options{})
		s, err := i.Check(t.Context(), i, CheckOptions{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = readAsSent(s)
		fails(t, err, "but the config of the image says sha256:")
		s.Close()
	}
}

// What an OCI digest names is what it names: compressed layers of a layout are unpacked when that
// is asked for.
func TestCheckLayersWhenAsked(t *testing.T) {
	a := noise(50_000)
	right := packed(v1.MediaTypeImageLayerGzip, [][]byte{a}, asGzip(a))
	wrong := packed(v1.MediaTypeImageLayerGzip, [][]byte{a}, asGzip(a[1:]))
	lying := packed(v1.MediaTypeImageLayer, [][]byte{a}, asZstd(a)) // called a plain tar
	plainly := packed(v1.MediaTypeImageLayerGzip, [][]byte{a}, a)   // called compressed
	for name, c := range map[string]struct {
		m    *img
		want string
	}{"right": {right, ""}, "wrong": {wrong, "unpacks to"}, "called a plain tar": {lying, ""}, "called compressed": {plainly, ""}} {
		for kind, path := range everywhere(t, c.m.files()) {
			t.Run(name+" in "+kind, func(t *testing.T) {
				i := mustOpen(t, path, Options{})
				s, err := i.Check(t.Context(), i, CheckOptions{})
				if s != Source(i) || err != nil {
					t.Errorf("unasked: %v", err)
				}
				if s, err = i.Check(t.Context(), i, CheckOptions{Layers: true}); err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				if _, err := readAsSent(s); c.want != "" {
					fails(t, err, c.want)
				} else if err != nil {
					t.Error(err)
				}
			})
		}
	}
}
