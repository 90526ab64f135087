package main

import (
	"archive/tar"
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// archive is an OCI archive to be made of an image's blobs: an OCI image layout in a tar. The
// same image under the same name gives the same bytes: names in order, no owner, no time.
type archive struct {
	blobs []v1.Descriptor // by digest
	index []byte
}

const archiveLayout = `{"imageLayoutVersion":"1.0.0"}`

// newArchive is of an image whose last manifest or index is its root.
func newArchive(ref string, blobs []v1.Descriptor, root v1.Descriptor) (*archive, error) {
	index, err := json.Marshal(v1.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex,
		Manifests: []v1.Descriptor{{MediaType: root.MediaType, Digest: root.Digest, Size: root.Size,
			// What podman, and what containerd, calls it.
			Annotations: map[string]string{v1.AnnotationRefName: ref, "io.containerd.image.name": ref}}},
	})
	if err != nil {
		return nil, err
	}
	a := &archive{blobs: slices.Clone(blobs), index: index}
	slices.SortFunc(a.blobs, func(x, y v1.Descriptor) int { return cmp.Compare(x.Digest, y.Digest) })
	return a, nil
}

const tarBlock = 512

// size is how many bytes write will write.
func (a *archive) size() int64 {
	n := int64(4+len(a.blobs)) * tarBlock // headers: two directories, two files, the blobs
	for _, size := range append(a.sizes(), int64(len(a.index)), int64(len(archiveLayout))) {
		n += (size + tarBlock - 1) / tarBlock * tarBlock
	}
	return n + 2*tarBlock // the end
}

func (a *archive) sizes() []int64 {
	sizes := make([]int64, len(a.blobs))
	for i, d := range a.blobs {
		sizes[i] = d.Size
	}
	return sizes
}

// write makes the archive; open opens a blob.
func (a *archive) write(w io.Writer, open func(v1.Descriptor) (io.ReadCloser, error)) error {
	buffered := bufio.NewWriterSize(w, 1<<20)
	t := tar.NewWriter(buffered)
	put := func(name string, kind byte, mode, size int64, r io.Reader) error {
		err := t.WriteHeader(&tar.Header{Name: name, Typeflag: kind, Mode: mode, Size: size, ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR})
		if err == nil && r != nil {
			_, err = io.Copy(t, r)
		}
		return err
	}
	text := func(name, s string) error {
		if err := put(name, tar.TypeReg, 0o644, int64(len(s)), nil); err != nil {
			return err
		}
		_, err := io.WriteString(t, s)
		return err
	}
	for _, dir := range []string{"blobs/", "blobs/sha256/"} {
		if err := put(dir, tar.TypeDir, 0o755, 0, nil); err != nil {
			return err
		}
	}
	for _, d := range a.blobs {
		rc, err := open(d)
		if err != nil {
			return err
		}
		err = put("blobs/"+d.Digest.Algorithm().String()+"/"+d.Digest.Encoded(), tar.TypeReg, 0o644, d.Size, rc)
		rc.Close()
		if err != nil {
			return fmt.Errorf("blob %s: %w", d.Digest, err)
		}
	}
	if err := text(v1.ImageIndexFile, string(a.index)); err != nil {
		return err
	}
	if err := text(v1.ImageLayoutFile, archiveLayout); err != nil {
		return err
	}
	if err := t.Close(); err != nil {
		return err
	}
	return buffered.Flush()
}
