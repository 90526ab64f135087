package cache

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	maxManifest = 4 << 20 // bytes; the limit registries have
	maxDepth    = 4       // of an index in an index in …, as in package oci

	// Docker has media types of its own for the same JSON form.
	mediaTypeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	mediaTypeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// mediaTypeSIFLayer is the type of what apptainer itself pushes to registries.
const mediaTypeSIFLayer = "application/vnd.sylabs.sif.layer.v1.sif"

// sifLayers are the media types of a SIF: that of apptainer, and the two that Singularity before 3.7 pushed, one of them
// misspelt.
var sifLayers = []string{
	mediaTypeSIFLayer, "appliciation/vnd.sylabs.sif.layer.tar", "application/vnd.sylabs.sif.layer.tar",
}

func isIndex(mediaType string) bool {
	return mediaType == v1.MediaTypeImageIndex || mediaType == mediaTypeDockerList
}

func isManifest(mediaType string) bool {
	return mediaType == v1.MediaTypeImageManifest || mediaType == mediaTypeDockerManifest
}

// validate is d.Validate. It does without a regular expression for SHA-256, because the digests of an image with many
// blobs are validated several times.
func validate(d digest.Digest) error {
	hex, ok := strings.CutPrefix(string(d), "sha256:")
	if ok && len(hex) == 64 && strings.Trim(hex, "0123456789abcdef") == "" {
		return nil
	}
	return d.Validate()
}

// blobName returns the file of a blob inside the cache.
func blobName(d digest.Digest) (string, error) {
	if err := validate(d); err != nil {
		return "", fmt.Errorf("digest %q: %w", d, err)
	}
	return "blobs/" + d.Algorithm().String() + "/" + d.Encoded(), nil
}

// manifest is the manifest of an image, or an index: a blob that references other blobs.
type manifest struct {
	Config    *v1.Descriptor  `json:"config"`
	Layers    []v1.Descriptor `json:"layers"`
	Manifests []v1.Descriptor `json:"manifests"`
}

// decodeManifest reads the references of a manifest or index, and checks each one.
func decodeManifest(b []byte) (m manifest, err error) {
	if err := json.Unmarshal(b, &m); err != nil {
		return manifest{}, err
	}
	for _, d := range m.references() {
		if err := checkDescriptor(d); err != nil {
			return manifest{}, err
		}
	}
	return m, nil
}

// references lists the references: manifests first, then the config and the layers. If a config or a layer has the media
// type of a manifest, the image still needs nothing that it references. So it gets another type here, and
// nobody looks into it.
// https://github.com/opencontainers/image-spec/issues/1101
func (m manifest) references() []v1.Descriptor {
	refs := append([]v1.Descriptor{}, m.Manifests...)
	blobs := m.Layers
	if m.Config != nil {
		blobs = append([]v1.Descriptor{*m.Config}, blobs...)
	}
	for _, d := range blobs {
		if IsManifest(d.MediaType) {
			d.MediaType = "application/octet-stream"
		}
		refs = append(refs, d)
	}
	return refs
}

// seen has the blobs that a walk has met. The value says whether the walk has looked into the blob as a manifest; the same
// blob may be a layer elsewhere.
type seen map[digest.Digest]bool

// add notes d. It reports whether the blob is new, and whether its references have to be walked.
func (s seen) add(d v1.Descriptor, manifest bool) (blob, references bool) {
	looked, there := s[d.Digest]
	s[d.Digest] = looked || manifest
	return !there, manifest && !looked
}

// sif returns the layer that is the SIF, if the manifest is that of a SIF.
func (m manifest) sif() (v1.Descriptor, bool) {
	if len(m.Layers) == 1 && slices.Contains(sifLayers, m.Layers[0].MediaType) {
		return m.Layers[0], true
	}
	return v1.Descriptor{}, false
}

// manifest reads the manifest d and compares it with its digest.
func (c *Cache) manifest(d v1.Descriptor) (manifest, error) {
	m, err := c.readManifest(d)
	if err != nil {
		return m, fmt.Errorf("cache %s: manifest %s: %w", c.dir, d.Digest, err)
	}
	return m, nil
}

func (c *Cache) readManifest(d v1.Descriptor) (manifest, error) {
	b, err := c.manifestBytes(d)
	if err != nil {
		return manifest{}, err
	}
	return decodeManifest(b)
}

func (c *Cache) manifestBytes(d v1.Descriptor) ([]byte, error) {
	name, err := blobName(d.Digest)
	if err != nil {
		return nil, err
	}
	b, err := readFile(c.fs, name, maxManifest)
	if err == nil && d.Digest.Algorithm().FromBytes(b) != d.Digest {
		err = errWrong
	}
	return b, err
}

// errWrong is the error of a blob whose bytes do not have the digest in its name.
var errWrong = errors.New("has other bytes than its digest says")

// kind returns the kind of image that d names.
func (c *Cache) kind(d v1.Descriptor) (string, error) {
	if isIndex(d.MediaType) {
		return KindIndex, nil
	}
	m, err := c.manifest(d)
	if err != nil {
		return "", err
	}
	if _, ok := m.sif(); ok {
		return KindSIF, nil
	}
	return KindImage, nil
}

// walk calls visit for root and everything it references, once each, children of
// a manifest after it. What has its bytes elsewhere (urls) need not be there and
// is left out.
func (c *Cache) walk(root v1.Descriptor, visit func(v1.Descriptor) error) error {
	return c.walkTo(maxDepth, root, seen{}, visit)
}

func (c *Cache) walkTo(depth int, d v1.Descriptor, seen seen, visit func(v1.Descriptor) error) error {
	if len(d.URLs) > 0 {
		return nil
	}
	blob, references := seen.add(d, IsManifest(d.MediaType))
	if blob {
		if err := visit(d); err != nil {
			return err
		}
	}
	if !references {
		return nil
	}
	if depth < 0 {
		return fmt.Errorf("cache %s: manifest %s: nested too deeply", c.dir, d.Digest)
	}
	m, err := c.manifest(d)
	if err != nil {
		return err
	}
	for _, child := range m.references() {
		if err := c.walkTo(depth-1, child, seen, visit); err != nil {
			return err
		}
	}
	return nil
}

// reach returns root and everything below it, once each. It passes over a manifest that is missing or has wrong bytes,
// because the next transfer brings it again, and leaves out references that no transfer could bring. The error is
// about a manifest that is there and cannot be read.
func (c *Cache) reach(root v1.Descriptor) (list []v1.Descriptor, unread error) {
	seen := seen{}
	todo := []v1.Descriptor{root}
	for len(todo) > 0 {
		d := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if checkDescriptor(d) != nil {
			continue
		}
		blob, references := seen.add(d, IsManifest(d.MediaType) || d.Digest == root.Digest)
		if blob {
			list = append(list, d)
		}
		if !references {
			continue
		}
		b, err := c.manifestBytes(d)
		if large := new(largeError); d.MediaType == "" && errors.As(err, &large) {
			continue // a wish may be for any blob, and one of this size is no manifest
		}
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errWrong) {
				unread = fmt.Errorf("manifest %s: %w", d.Digest, err)
			}
			continue
		}
		var m manifest
		if json.Unmarshal(b, &m) == nil { // right bytes that are no manifest reference nothing
			todo = append(todo, m.references()...)
		}
	}
	return list, unread
}

// present returns an error if the blob is not there with its whole length.
func (c *Cache) present(d v1.Descriptor) error {
	name, err := blobName(d.Digest)
	if err != nil {
		return err
	}
	info, err := c.fs.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cache %s: blob %s: %w", c.dir, d.Digest, ErrNotFound)
	}
	if err == nil && (!info.Mode().IsRegular() || info.Size() != d.Size) {
		err = fmt.Errorf("has %d bytes, not %d", info.Size(), d.Size)
	}
	if err != nil {
		return fmt.Errorf("cache %s: blob %s: %w", c.dir, d.Digest, err)
	}
	return nil
}

// suffixes are the suffixes of image files, the longer ones first.
var suffixes = []string{
	".tar.gz", ".tar.xz", ".tar.zst", ".tar.bz2", ".tar.lz4", ".oci.tar",
	".tar", ".tgz", ".txz", ".tzst", ".sif", ".simg", ".img", ".oci", ".sqsh", ".squashfs",
}

// LocalRef returns the reference for an image file without a name of its own:
// localhost/<file name>:latest. The file name is without its suffix, in lower case, and
// with - for every run of characters that a reference cannot have.
func LocalRef(fileName string) string {
	name := strings.ToLower(fileName[strings.LastIndexByte(fileName, '/')+1:])
	for _, s := range suffixes {
		if strings.HasSuffix(name, s) {
			name = strings.TrimSuffix(name, s)
			break
		}
	}
	var b strings.Builder
	separator := "" // to be written before the next letter or digit
	for _, r := range name {
		switch {
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
			if b.Len() > 0 {
				b.WriteString(separator)
			}
			separator = ""
			b.WriteRune(r)
		case separator == "" && (r == '.' || r == '_'):
			separator = string(r)
		default:
			separator = "-"
		}
		if b.Len() >= 128 {
			break
		}
	}
	if b.Len() == 0 {
		b.WriteString("image")
	}
	return "localhost/" + b.String() + ":latest"
}
