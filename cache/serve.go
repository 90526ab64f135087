package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Reference is a name in the cache, split into its parts.
type Reference struct {
	Repository string // with the registry, as in docker.io/library/busybox
	Tag        string // "" if the name has a digest
	Root       v1.Descriptor
}

// References lists the names that a registry could have.
func (c *Cache) References() ([]Reference, error) {
	index, err := c.readIndex()
	if err != nil {
		return nil, err
	}
	var list []Reference
	for _, d := range index.Manifests {
		if repo, tag, ok := splitRef(refName(d)); ok {
			list = append(list, Reference{repo, tag, d})
		}
	}
	return list, nil
}

// splitRef splits a name. It returns false if no registry could have it.
func splitRef(name string) (repo, tag string, ok bool) {
	name, _, byDigest := strings.Cut(name, "@")
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		name, tag = name[:i], name[i+1:]
	}
	ok = strings.ContainsRune(name, '/') && (tag != "" || byDigest)
	if byDigest { // a tag beside a digest may have moved to another image since
		tag = ""
	}
	return name, tag, ok
}

// Wanted lists the manifests that are here, and that owners want for a name of a repository which is accepts. The name may
// lead to another one by now, or to none.
func (c *Cache) Wanted(is func(repository string) bool) ([]v1.Descriptor, error) {
	w, err := c.readWishes()
	if err != nil {
		return nil, err
	}
	var list []v1.Descriptor
	for _, wishes := range w {
		for _, wish := range wishes {
			if repo, _, ok := splitRef(wish.Name); !ok || !is(repo) {
				continue
			}
			if d, err := c.describe(wish.Digest); err == nil {
				list = append(list, d)
			}
		}
	}
	return list, nil
}

// Names lists the references, as they stand in index.json.
func (c *Cache) Names() ([]string, error) {
	index, err := c.readIndex()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, d := range index.Manifests {
		if name := refName(d); name != "" {
			names = append(names, name)
		}
	}
	return names, nil
}

// IsManifest reports whether this is the media type of a manifest or an index, which reference other blobs.
func IsManifest(mediaType string) bool { return isManifest(mediaType) || isIndex(mediaType) }

// Find looks for d below the roots and returns its descriptor there. If d is not there, the error wraps ErrNotFound.
func (c *Cache) Find(roots []v1.Descriptor, d digest.Digest) (v1.Descriptor, error) {
	for _, root := range roots {
		list, _ := c.reach(root) // an index may name manifests that are not here
		if i := slices.IndexFunc(list, func(b v1.Descriptor) bool { return b.Digest == d }); i >= 0 {
			return list[i], nil
		}
	}
	return v1.Descriptor{}, fmt.Errorf("cache %s: blob %s: %w", c.dir, d, ErrNotFound)
}

// Startable returns an error if a container cannot be started from d, because a blob that its manifest needs is missing
// or has wrong bytes. It hashes blobs that nobody has verified, and moves wrong ones to quarantine. An index may
// lack manifests that never were here; then one for this machine has to be here, and all images that are here have
// to be whole.
func (c *Cache) Startable(ctx context.Context, d v1.Descriptor) error {
	if !isIndex(d.MediaType) {
		return c.walk(d, func(b v1.Descriptor) error { return c.right(ctx, b) })
	}
	p := &platforms{c: c, seen: seen{}}
	if err := p.look(ctx, d, maxDepth); err != nil {
		return err
	}
	if p.lacks != nil && !p.here {
		return fmt.Errorf("nothing for this machine: %w", p.lacks)
	}
	return nil
}

// right returns an error if a blob is not there, or has wrong bytes.
func (c *Cache) right(ctx context.Context, d v1.Descriptor) error {
	if err := c.present(d); err != nil {
		return err
	}
	if _, ok := c.trusted(d.Digest); ok {
		return nil
	}
	return c.verify(ctx, d.Digest, func(int) {}).Err
}

// platforms is a walk through an index that finds out which of its images are here.
type platforms struct {
	c    *Cache
	seen seen
	// lacks is the error about a manifest that never was here.
	lacks error
	// here says that there is an image for this machine.
	here bool
}

// look looks through an index, and the indexes in it. It returns an error about what should be here and is not.
func (p *platforms) look(ctx context.Context, index v1.Descriptor, depth int) error {
	if depth < 0 {
		return fmt.Errorf("cache %s: manifest %s: nested too deeply", p.c.dir, index.Digest)
	}
	if err := p.c.right(ctx, index); err != nil {
		return err
	}
	m, err := p.c.manifest(index)
	if err != nil {
		return err
	}
	for _, d := range m.Manifests {
		if blob, _ := p.seen.add(d, false); !blob {
			continue
		}
		err := p.c.present(d)
		switch {
		case errors.Is(err, ErrNotFound) && !p.c.quarantined(d.Digest):
			p.lacks = err
			continue
		case err != nil:
		case isIndex(d.MediaType):
			err = p.look(ctx, d, depth-1)
		default:
			err = p.c.walk(d, func(b v1.Descriptor) error { return p.c.right(ctx, b) })
			p.here = p.here || forHere(d.Platform)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// forHere reports whether an image for platform p may be for this machine.
func forHere(p *v1.Platform) bool {
	if p == nil {
		return true
	}
	arch := p.Architecture
	switch arch { // some images have the names that uname prints
	case "x86_64":
		arch = "amd64"
	case "aarch64":
		arch = "arm64"
	}
	return p.OS == runtime.GOOS && arch == runtime.GOARCH
}

// Touch records that the image with this manifest was used now.
func (c *Cache) Touch(d digest.Digest) { c.touch(d) }

// OpenVerified opens a blob for reading. If no record says that the blob is right, it hashes the blob first. The blob
// stays readable if it is removed meanwhile. If it is not there, the error wraps ErrNotFound.
func (c *Cache) OpenVerified(ctx context.Context, d v1.Descriptor) (io.ReadSeekCloser, error) {
	if err := c.present(d); err != nil {
		return nil, err
	}
	if _, ok := c.trusted(d.Digest); !ok {
		info, err := c.hash(ctx, d.Digest, func(int) {})
		if err != nil {
			return nil, fmt.Errorf("cache %s: blob %s: %w", c.dir, d.Digest, err)
		}
		c.trust(d.Digest, info)
	}
	path, err := c.BlobPath(d.Digest)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("cache %s: blob %s: %w", c.dir, d.Digest, ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Size() != d.Size {
		err = fmt.Errorf("cache %s: blob %s: %d bytes, not %d", c.dir, d.Digest, info.Size(), d.Size)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
