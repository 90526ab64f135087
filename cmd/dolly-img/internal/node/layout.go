package node

import (
	"archive/tar"
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// layout is an OCI image layout that is made of the blobs of one image, in a directory or a tar.
// The same image under the same name gives the same bytes.
type layout struct {
	blobs []v1.Descriptor // sorted by digest
	index []byte
	ref   string
}

// files returns the paths of all files of the layout.
func (l *layout) files() []string {
	files := []string{v1.ImageIndexFile, v1.ImageLayoutFile}
	for _, d := range l.blobs {
		files = append(files, blobFile(d))
	}
	return files
}

// layoutMarker is the content of oci-layout.
const layoutMarker = `{"imageLayoutVersion":"1.0.0"}`

// newLayout returns the layout of the image whose manifest or index is root.
func newLayout(ref string, blobs []v1.Descriptor, root v1.Descriptor) (*layout, error) {
	index, err := json.Marshal(v1.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex,
		Manifests: []v1.Descriptor{{MediaType: root.MediaType, Digest: root.Digest, Size: root.Size,
			// Podman reads the name from the first annotation, containerd from the second.
			Annotations: map[string]string{v1.AnnotationRefName: ref, "io.containerd.image.name": ref}}},
	})
	if err != nil {
		return nil, err
	}
	l := &layout{blobs: slices.Clone(blobs), index: index, ref: ref}
	slices.SortFunc(l.blobs, func(x, y v1.Descriptor) int { return cmp.Compare(x.Digest, y.Digest) })
	return l, nil
}

const tarBlock = 512

// tarSize returns how many bytes writeTar writes.
func (l *layout) tarSize() int64 {
	n := int64(4+len(l.blobs)) * tarBlock // the headers of two directories, two files and the blobs
	for _, size := range append(l.sizes(), int64(len(l.index)), int64(len(layoutMarker))) {
		n += (size + tarBlock - 1) / tarBlock * tarBlock
	}
	return n + 2*tarBlock // the end of the archive
}

func (l *layout) sizes() []int64 {
	sizes := make([]int64, len(l.blobs))
	for i, d := range l.blobs {
		sizes[i] = d.Size
	}
	return sizes
}

// writeTar writes the archive, with sorted names and without owners and times.
func (l *layout) writeTar(ctx context.Context, w io.Writer, open blobOpener) error {
	buffered := bufio.NewWriterSize(w, 1<<20)
	t := tar.NewWriter(buffered)
	put := func(name string, kind byte, mode, size int64) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		format := tar.FormatUSTAR
		if size >= 8<<30 { // the field of USTAR holds no larger number
			format = tar.FormatGNU
		}
		return t.WriteHeader(&tar.Header{Name: name, Typeflag: kind, Mode: mode, Size: size, ModTime: time.Unix(0, 0), Format: format})
	}
	text := func(name, s string) error {
		if err := put(name, tar.TypeReg, 0o644, int64(len(s))); err != nil {
			return err
		}
		_, err := io.WriteString(t, s)
		return err
	}
	for _, dir := range []string{"blobs/", "blobs/sha256/"} {
		if err := put(dir, tar.TypeDir, 0o755, 0); err != nil {
			return err
		}
	}
	for _, d := range l.blobs {
		blob, err := open(d)
		if err != nil {
			return err
		}
		if err = put(blobFile(d), tar.TypeReg, 0o644, d.Size); err == nil {
			_, err = io.Copy(t, blob)
		}
		blob.Close()
		if err != nil {
			return fmt.Errorf("blob %s: %w", d.Digest, err)
		}
	}
	if err := text(v1.ImageIndexFile, string(l.index)); err != nil {
		return err
	}
	if err := text(v1.ImageLayoutFile, layoutMarker); err != nil {
		return err
	}
	if err := t.Close(); err != nil {
		return err
	}
	return buffered.Flush()
}
