package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"

	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// layout is an OCI image layout, in a directory or an archive: files with names.
// https://github.com/opencontainers/image-spec/blob/main/image-layout.md
type layout struct {
	files     files
	root      v1.Descriptor
	platforms []v1.Descriptor // the images, if index.json itself is the list of platforms; else nil
	tag       string          // the only tag that index.json has for the image; "" if it has none or several
}

// files are the regular files of a layout, by slash-separated name. If a file is not
// there, the error wraps fs.ErrNotExist.
type files interface {
	open(ctx context.Context, name string, off int64) (io.ReadCloser, int64, error) // and its size
	length(name string) (int64, error)
	io.Closer
}

func openLayout(ctx context.Context, s string) (store, string, error) {
	dir, ref, err := splitPath(s)
	if err != nil {
		return nil, "", err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, "", err
	}
	return newLayout(ctx, dirFiles{root}, ref)
}

// newLayout finds ref in the layout. If it fails, it closes f.
func newLayout(ctx context.Context, f files, ref string) (_ store, name string, err error) {
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	var marker v1.ImageLayout
	if err := readJSON(ctx, f, v1.ImageLayoutFile, &marker); err != nil {
		return nil, "", err
	}
	if marker.Version != v1.ImageLayoutVersion {
		return nil, "", fmt.Errorf("%s: version %q, not %s", v1.ImageLayoutFile, marker.Version, v1.ImageLayoutVersion)
	}
	var index v1.Index
	if err := readJSON(ctx, f, v1.ImageIndexFile, &index); err != nil {
		return nil, "", err
	}
	found, err := pick(index.Manifests, ref)
	if err != nil {
		return nil, "", err
	}
	l := &layout{files: f, root: found[0].Descriptor, tag: onlyTag(index.Manifests, found[0])}
	for _, n := range found {
		if err := checkDescriptor(n.Descriptor); err != nil {
			return nil, "", fmt.Errorf("%s: %w", v1.ImageIndexFile, err)
		}
		if len(found) > 1 {
			l.platforms = append(l.platforms, n.Descriptor)
		}
	}
	return l, found[0].own, nil
}

func (l *layout) rootManifest(ctx context.Context) ([]byte, string, error) {
	if l.platforms != nil {
		raw, err := json.Marshal(v1.Index{Versioned: versioned, MediaType: v1.MediaTypeImageIndex, Manifests: l.platforms})
		return raw, v1.MediaTypeImageIndex, err
	}
	raw, err := l.manifest(ctx, l.root)
	if err == nil {
		err = check(raw, l.root)
	}
	if err != nil {
		return nil, "", fmt.Errorf("manifest %s: %w", l.root.Digest, err)
	}
	return raw, l.root.MediaType, nil
}

func (l *layout) manifest(ctx context.Context, d v1.Descriptor) ([]byte, error) {
	if err := d.Digest.Validate(); err != nil {
		return nil, err
	}
	return readSmall(ctx, l.files, blobFile(d))
}

func (l *layout) blob(ctx context.Context, d v1.Descriptor, off int64) (io.ReadCloser, error) {
	rc, size, err := l.files.open(ctx, blobFile(d), off)
	if err != nil {
		return nil, err
	}
	if size != d.Size {
		rc.Close()
		return nil, fmt.Errorf("has %d bytes, not %d", size, d.Size)
	}
	return rc, nil
}

// has returns an error if a blob is not there with its whole length.
func (l *layout) has(d v1.Descriptor) error {
	size, err := l.files.length(blobFile(d))
	if err == nil && size != d.Size {
		err = fmt.Errorf("has %d bytes, not %d", size, d.Size)
	}
	if err != nil {
		return &wrong{fmt.Errorf("blob %s: %w", d.Digest, err)}
	}
	return nil
}

func (l *layout) readers() int {
	if a, ok := l.files.(*archive); ok {
		return a.readers()
	}
	return runtime.GOMAXPROCS(0)
}

func (l *layout) Close() error { return l.files.Close() }

func blobFile(d v1.Descriptor) string {
	return v1.ImageBlobsDir + "/" + d.Digest.Algorithm().String() + "/" + d.Digest.Encoded()
}

func readJSON(ctx context.Context, f files, name string, v any) error {
	raw, err := readSmall(ctx, f, name)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("not an OCI image layout: no %s", name)
	}
	if err == nil {
		err = json.Unmarshal(raw, v)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// readSmall reads a file that may be as large as a manifest.
func readSmall(ctx context.Context, f files, name string) ([]byte, error) {
	rc, size, err := f.open(ctx, name, 0)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	if size > MaxManifest {
		return nil, fmt.Errorf("%d bytes, at most %d", size, MaxManifest)
	}
	return io.ReadAll(io.LimitReader(rc, MaxManifest+1))
}

// dirFiles is a directory. No name and no link in it leads out of it.
type dirFiles struct{ root *os.Root }

func (d dirFiles) open(_ context.Context, name string, off int64) (io.ReadCloser, int64, error) {
	f, err := d.root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0) // without O_NONBLOCK, opening a FIFO would wait
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err == nil && (off < 0 || off > info.Size()) {
		err = fmt.Errorf("offset %d is outside of %d bytes", off, info.Size())
	}
	if err == nil {
		_, err = f.Seek(off, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

func (d dirFiles) length(name string) (int64, error) {
	info, err := d.root.Stat(name)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (d dirFiles) Close() error { return d.root.Close() }

var versioned = specs.Versioned{SchemaVersion: 2}
