// Package testimage makes container images for the tests: a busybox that runs, and layers of data,
// for two platforms. The same arguments give the same bytes.
package testimage

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Options say what an image is made of.
type Options struct {
	Busybox string // program that becomes /bin/busybox; "": a few bytes
	Layers  int    // of data, besides the first
	Size    int64  // bytes of all of them
	Version int    // of the last layer; the others are the same in each version
	Zstd    bool   // the second layer is compressed with zstd
}

// Layout writes an OCI image layout into dir, which is made, with an index for linux/amd64 and
// linux/arm64 that ref names, and returns the index's descriptor.
func Layout(dir, ref string, o Options) (v1.Descriptor, error) {
	w := &writer{dir: dir}
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o755); err != nil {
		return v1.Descriptor{}, err
	}
	var shared []layer
	first, err := w.rootfs(o.Busybox)
	if err != nil {
		return v1.Descriptor{}, err
	}
	shared = append(shared, first)
	for i := range o.Layers {
		version := 0
		if i == o.Layers-1 {
			version = o.Version
		}
		l, err := w.data(i, version, o.Size/int64(o.Layers), o.Zstd && i == 0)
		if err != nil {
			return v1.Descriptor{}, err
		}
		shared = append(shared, l)
	}
	index := v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex}
	for _, arch := range []string{"amd64", "arm64"} {
		m, err := w.image(arch, shared)
		if err != nil {
			return v1.Descriptor{}, err
		}
		m.Platform = &v1.Platform{OS: "linux", Architecture: arch}
		index.Manifests = append(index.Manifests, m)
	}
	root, err := w.json(v1.MediaTypeImageIndex, index)
	if err != nil {
		return v1.Descriptor{}, err
	}
	named := root
	named.Annotations = map[string]string{v1.AnnotationRefName: ref}
	top := v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []v1.Descriptor{named}}
	if err := writeJSON(filepath.Join(dir, v1.ImageIndexFile), top); err != nil {
		return v1.Descriptor{}, err
	}
	return root, writeJSON(filepath.Join(dir, v1.ImageLayoutFile), v1.ImageLayout{Version: v1.ImageLayoutVersion})
}

type layer struct {
	d    v1.Descriptor
	diff digest.Digest
}

type writer struct{ dir string }

func (w *writer) image(arch string, layers []layer) (v1.Descriptor, error) {
	config := v1.Image{
		Platform: v1.Platform{OS: "linux", Architecture: arch},
		Config:   v1.ImageConfig{Cmd: []string{"/bin/sh"}, Env: []string{"PATH=/bin"}},
		RootFS:   v1.RootFS{Type: "layers"},
	}
	m := v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest}
	for _, l := range layers {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, l.diff)
		m.Layers = append(m.Layers, l.d)
	}
	var err error
	if m.Config, err = w.json(v1.MediaTypeImageConfig, config); err != nil {
		return v1.Descriptor{}, err
	}
	return w.json(v1.MediaTypeImageManifest, m)
}

// rootfs is a layer with a shell.
func (w *writer) rootfs(busybox string) (layer, error) {
	program := []byte("#!/bin/false\n")
	if busybox != "" {
		var err error
		if program, err = os.ReadFile(busybox); err != nil {
			return layer{}, err
		}
	}
	return w.layer(v1.MediaTypeImageLayerGzip, func(t *tar.Writer) error {
		for _, name := range []string{"bin/", "proc/", "sys/", "dev/", "tmp/", "etc/", "data/"} {
			if err := t.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755, ModTime: epoch}); err != nil {
				return err
			}
		}
		if err := file(t, "bin/busybox", 0o755, int64(len(program)), bytes.NewReader(program)); err != nil {
			return err
		}
		for _, name := range []string{"sh", "cat", "echo", "ls", "sha256sum"} {
			if err := t.WriteHeader(&tar.Header{Name: "bin/" + name, Linkname: "busybox", Typeflag: tar.TypeSymlink, Mode: 0o777, ModTime: epoch}); err != nil {
				return err
			}
		}
		passwd := "root:x:0:0:root:/:/bin/sh\n"
		return file(t, "etc/passwd", 0o644, int64(len(passwd)), bytes.NewReader([]byte(passwd)))
	})
}

// data is a layer with one file that does not compress.
func (w *writer) data(i, version int, size int64, zst bool) (layer, error) {
	kind := v1.MediaTypeImageLayerGzip
	if zst {
		kind = v1.MediaTypeImageLayerZstd
	}
	return w.layer(kind, func(t *tar.Writer) error {
		seed := sha256.Sum256(fmt.Appendf(nil, "layer %d version %d", i, version))
		random := rand.NewChaCha8(seed)
		return file(t, fmt.Sprintf("data/%d", i), 0o644, size, io.LimitReader(random, size))
	})
}

var epoch = time.Unix(0, 0)

func file(t *tar.Writer, name string, mode, size int64, r io.Reader) error {
	if err := t.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: mode, Size: size, ModTime: epoch}); err != nil {
		return err
	}
	_, err := io.Copy(t, r)
	return err
}

func (w *writer) layer(mediaType string, fill func(*tar.Writer) error) (layer, error) {
	temp, err := os.CreateTemp(w.dir, "layer-")
	if err != nil {
		return layer{}, err
	}
	defer temp.Close()
	sum, plain := sha256.New(), sha256.New()
	count := &counter{w: io.MultiWriter(temp, sum)}
	var z io.WriteCloser
	if mediaType == v1.MediaTypeImageLayerZstd {
		z, err = zstd.NewWriter(count, zstd.WithEncoderLevel(zstd.SpeedFastest))
	} else {
		z, err = gzip.NewWriterLevel(count, gzip.BestSpeed)
	}
	if err != nil {
		return layer{}, err
	}
	t := tar.NewWriter(io.MultiWriter(z, plain))
	if err := fill(t); err != nil {
		return layer{}, err
	}
	if err := t.Close(); err != nil {
		return layer{}, err
	}
	if err := z.Close(); err != nil {
		return layer{}, err
	}
	l := layer{
		d:    v1.Descriptor{MediaType: mediaType, Digest: digest.NewDigest(digest.SHA256, sum), Size: count.n},
		diff: digest.NewDigest(digest.SHA256, plain),
	}
	if err := os.Chmod(temp.Name(), 0o644); err != nil {
		return layer{}, err
	}
	return l, os.Rename(temp.Name(), w.blob(l.d.Digest))
}

func (w *writer) blob(d digest.Digest) string {
	return filepath.Join(w.dir, "blobs", "sha256", d.Encoded())
}

func (w *writer) json(mediaType string, v any) (v1.Descriptor, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return v1.Descriptor{}, err
	}
	d := v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	return d, os.WriteFile(w.blob(d.Digest), b, 0o644)
}

func writeJSON(name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(name, b, 0o644)
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}
