package cache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"regexp"

	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/cache/durable"
	"github.com/dolly-img/dolly-img/ring/errkind"
)

// maxIndex bounds index.json, in bytes: about 40,000 references.
const maxIndex = 16 << 20

// refForm matches what a reference may be made of. That includes the names in registries, whose host may be an
// IPv6 address in brackets, and what the specification of layouts allows. The length is bounded by maxRef and not here:
// a count in an expression is unrolled, which took a sixth of the time that every command needs to start.
var refForm = regexp.MustCompile(`^([A-Za-z0-9]|\[[0-9A-Fa-f:.]{2,45}\])[A-Za-z0-9._:@/+-]*$`)

// maxRef bounds a reference, in bytes.
const maxRef = 512

// CheckRef returns an error if ref cannot name an image.
func CheckRef(ref string) error {
	if len(ref) > maxRef {
		return fmt.Errorf("reference %.40q… has %d bytes, and %d is the most", ref, len(ref), maxRef)
	}
	if !refForm.MatchString(ref) {
		return fmt.Errorf("reference %q: only letters, digits and . _ : @ / + - may be in it, and an IPv6 address in brackets at its beginning", ref)
	}
	return nil
}

// decodeIndex reads an image index, and checks every descriptor.
func decodeIndex(b []byte) (v1.Index, error) {
	var index v1.Index
	if err := json.Unmarshal(b, &index); err != nil {
		return v1.Index{}, err
	}
	if index.SchemaVersion != 2 {
		return v1.Index{}, fmt.Errorf("schemaVersion is %d, not 2", index.SchemaVersion)
	}
	for i, d := range index.Manifests {
		if err := checkDescriptor(d); err != nil {
			return v1.Index{}, fmt.Errorf("descriptor %d: %w", i, err)
		}
	}
	return index, nil
}

func checkDescriptor(d v1.Descriptor) error {
	if err := validate(d.Digest); err != nil {
		return fmt.Errorf("digest %q: %w", d.Digest, err)
	}
	if d.Size < 0 {
		return fmt.Errorf("size %d", d.Size)
	}
	return nil
}

// readIndex reads index.json. If the file is damaged, it returns an error and leaves the file as it is.
func (c *Cache) readIndex() (v1.Index, error) {
	b, err := readFile(c.fs, "index.json", maxIndex)
	if err != nil {
		return v1.Index{}, fmt.Errorf("cache %s: index.json: %w", c.dir, err)
	}
	index, err := decodeIndex(b)
	if err != nil {
		return v1.Index{}, errkind.Errorf("cache-index",
			"cache %s: index.json: %w", c.dir, err)
	}
	return index, nil
}

// writeIndex replaces index.json durably. The caller holds the lock.
func (c *Cache) writeIndex(index v1.Index) error {
	b, err := json.Marshal(index)
	if err == nil && len(b) > maxIndex {
		err = fmt.Errorf("would be larger than %d bytes", maxIndex)
	}
	if err == nil {
		err = c.replace("index.json", b)
	}
	if err != nil {
		return fmt.Errorf("cache %s: index.json: %w", c.dir, err)
	}
	return nil
}

// settleIndex makes index.json durable as it is now. The process that wrote it may have failed or been killed after the
// rename and before it was durable.
func (c *Cache) settleIndex() error {
	if err := c.fs.SyncDir("."); err != nil {
		return fmt.Errorf("cache %s: index.json: %w", c.dir, err)
	}
	return nil
}

func emptyIndex() v1.Index {
	return v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{}}
}

// editIndex lets edit change index.json, and writes it if edit returns true.
func (c *Cache) editIndex(ctx context.Context, edit func(*v1.Index) (changed bool, err error)) error {
	unlock, err := c.lockIndex(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	index, err := c.readIndex()
	if err != nil {
		return err
	}
	changed, err := edit(&index)
	if err != nil {
		return err
	}
	if !changed {
		return c.settleIndex()
	}
	return c.writeIndex(index)
}

func refName(d v1.Descriptor) string { return d.Annotations[v1.AnnotationRefName] }

// Resolve returns the descriptor that ref names. If there is no such reference, the error wraps
// ErrNotFound.
func (c *Cache) Resolve(ref string) (v1.Descriptor, error) {
	index, err := c.readIndex()
	if err != nil {
		return v1.Descriptor{}, err
	}
	for _, d := range index.Manifests {
		if ref != "" && refName(d) == ref {
			return d, nil
		}
	}
	return v1.Descriptor{}, errkind.Errorf("cache-unknown", "cache %s: %q: %w", c.dir, ref, ErrNotFound)
}

// layout is the content of the marker file oci-layout.
const layout = `{"imageLayoutVersion":"1.0.0"}`

// checkLayout checks the marker. If there is none, the error wraps fs.ErrNotExist.
func checkLayout(fsys durable.FS) error {
	b, err := readFile(fsys, v1.ImageLayoutFile, 4<<10)
	if err != nil {
		return err
	}
	var l v1.ImageLayout
	if err := json.Unmarshal(b, &l); err != nil {
		return fmt.Errorf("oci-layout: %w", err)
	}
	if l.Version != v1.ImageLayoutVersion {
		return fmt.Errorf("oci-layout: version %q, not %s", l.Version, v1.ImageLayoutVersion)
	}
	return nil
}

// mkdirs makes those of the directories that are missing.
func mkdirs(fsys durable.FS, names ...string) error {
	for _, name := range names {
		if err := fsys.Mkdir(name, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}
