package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

// Options says how to find and read an image. Zero values are good.
type Options struct {
	// Platform is the OS/ARCH[/VARIANT] of the image to choose from an index. "" is linux
	// and the architecture of this program.
	Platform string
	// Nodes asks the nodes for their platforms, as OS/ARCH[/VARIANT], or "" if one does not say. It is
	// called at most once, and only if Platform is "" and an index has several variants for the
	// architecture. If it is nil, all nodes count as the lowest variant of the architecture.
	Nodes func(ctx context.Context) []string
	// AllPlatforms takes all images of an index.
	AllPlatforms bool
	// Name is the name under which the image is to be kept, in place of the one that the source has for it.
	Name string
	// Registry says how to talk to registries.
	Registry RegistryOptions
}

// Image is an image that was found. Its methods may be called at the same time.
type Image struct {
	asked string // the name that Open was given
	name  string // the full name that the source has for it
	ref   string // the full name under which it is to be kept
	root  v1.Descriptor
	store store
	raw   map[digest.Digest][]byte // manifests and indexes, as they came, and a config that was read
	held  int                      // bytes in raw
	blobs []v1.Descriptor

	manifests []*manifest    // of images, no indexes
	config    *v1.Descriptor // the config, if the image is for one platform

	elsewhere []v1.Descriptor // layers that have urls

	variant  string   // the variant that was chosen from variants
	variants []string // the variants of one architecture that the index has
}

// store is where the bytes of an image lie.
type store interface {
	// rootManifest returns what the name stands for, and its media type, or "" if that is not known.
	rootManifest(ctx context.Context) (raw []byte, mediaType string, err error)
	// manifest reads the manifest or index d.
	manifest(ctx context.Context, d v1.Descriptor) ([]byte, error)
	// blob reads d from off on.
	blob(ctx context.Context, d v1.Descriptor, off int64) (io.ReadCloser, error)
	io.Closer
}

// Open finds the image that name stands for. name begins with a transport of the
// package's list.
func Open(ctx context.Context, name string, o Options) (*Image, error) {
	want, err := parsePlatform(o.Platform)
	if err != nil {
		return nil, err
	}
	if o.AllPlatforms && o.Platform != "" {
		return nil, errors.New("all platforms and one of them: only one can be asked for")
	}
	s, own, err := openStore(ctx, name, o)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", name, err)
	}
	i := &Image{asked: name, store: s, raw: map[digest.Digest][]byte{}}
	if l, ok := s.(*layout); ok && l.platforms != nil && o.AllPlatforms {
		err = errkind.Errorf("platform-index", "index.json is itself the list of platforms, and no blob that nodes could keep")
	} else if err = i.setNames(own, o.Name); err == nil {
		err = i.resolve(ctx, want, o)
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("image %s: %w", name, err)
	}
	return i, nil
}

// Name returns the full name that the source has for the image, or "" if it has none.
func (i *Image) Name() string { return i.name }

// Ref returns the full name under which the image is to be kept: Options.Name, or else Name. If that has the digest of
// an index, Ref has the digest of the manifest that was chosen from it. It is "" if there is no name.
func (i *Image) Ref() string {
	if repo, _, ok := strings.Cut(i.ref, "@"); ok {
		return repo + "@" + i.root.Digest.String()
	}
	return i.ref
}

// Elsewhere lists the layers that are left out because they have urls. Whoever starts the image gets them from there,
// even if the source has them.
func (i *Image) Elsewhere() []v1.Descriptor { return i.elsewhere }

// Root returns the manifest or the index that was found.
func (i *Image) Root() v1.Descriptor { return i.root }

// Blobs lists all blobs of the image, each once. What a manifest needs comes before
// it, and the root comes last.
func (i *Image) Blobs(context.Context) ([]v1.Descriptor, error) { return i.blobs, nil }

// Open returns a reader of a blob from off on, which reads until the context ends. If the blob
// is read from its beginning and its bytes do not have its digest, the reader ends with an error.
func (i *Image) Open(ctx context.Context, d v1.Descriptor, off int64) (io.ReadCloser, error) {
	rc, err := i.OpenUnverified(ctx, d, off)
	if r, ok := rc.(*sized); ok && off == 0 {
		return &verifier{r, d.Digest.Verifier()}, err
	}
	return rc, err
}

// OpenUnverified is Open for a reader that compares the bytes with their digest itself. Their number is right.
func (i *Image) OpenUnverified(ctx context.Context, d v1.Descriptor, off int64) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if raw, ok := i.raw[d.Digest]; ok {
		return fromBytes(raw, off)
	}
	if off < 0 || off > d.Size {
		return nil, fmt.Errorf("blob %s: offset %d is outside of %d bytes", d.Digest, off, d.Size)
	}
	rc, err := i.store.blob(ctx, d, off)
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w", d.Digest, err)
	}
	return &sized{ReadCloser: rc, ctx: ctx, d: d, n: off}, nil
}

// Close frees what the image holds.
func (i *Image) Close() error { return i.store.Close() }

// resolve reads the root. If that is an index, resolve chooses one image from it, or takes all.
func (i *Image) resolve(ctx context.Context, want platform, o Options) error {
	raw, mediaType, err := i.store.rootManifest(ctx)
	if err != nil {
		return err
	}
	if err := i.checkName(raw); err != nil {
		return err
	}
	m, err := decode(raw, mediaType)
	if err != nil {
		return err
	}
	root := v1.Descriptor{MediaType: m.mediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw)), ArtifactType: m.artifactType()}
	i.raw[root.Digest] = raw
	for depth := 0; m.isIndex() && !o.AllPlatforms; depth++ {
		if depth == maxDepth {
			return errors.New("indexes are nested too deeply")
		}
		if root, err = i.fromIndex(ctx, m, want, o); err != nil {
			return err
		}
		if m, err = i.child(ctx, root); err != nil {
			return err
		}
	}
	i.root = root
	l := lister{image: i, seen: map[digest.Digest]bool{}, done: map[digest.Digest]bool{}}
	if err := l.list(ctx, root, m, 0); err != nil {
		return err
	}
	for _, d := range i.blobs {
		if d.Digest.Algorithm() != digest.SHA256 {
			return fmt.Errorf("blob %s: only digests of sha256 can be verified on the way", d.Digest)
		}
		// An error now is better than one after most of the image was sent.
		if l, ok := i.store.(*layout); ok && i.raw[d.Digest] == nil {
			if err := l.has(d); err != nil {
				return err
			}
		}
	}
	if m.isIndex() {
		return nil
	}
	if i.config = m.Config; o.Platform != "" {
		return i.checkPlatform(ctx, want)
	}
	return nil
}

// child reads and checks a manifest that an index names.
func (i *Image) child(ctx context.Context, d v1.Descriptor) (*manifest, error) {
	raw, ok := i.raw[d.Digest]
	if !ok {
		var err error
		if d.Size > MaxManifest {
			return nil, fmt.Errorf("manifest %s: %d bytes, at most %d", d.Digest, d.Size, MaxManifest)
		}
		if raw, err = i.store.manifest(ctx, d); err != nil {
			return nil, fmt.Errorf("manifest %s: %w", d.Digest, err)
		}
		if err := check(raw, d); err != nil {
			return nil, fmt.Errorf("manifest %s: %w", d.Digest, err)
		}
		if i.held += len(raw); i.held > maxManifests {
			return nil, fmt.Errorf("manifests of more than %d bytes together", maxManifests)
		}
		i.raw[d.Digest] = raw
	}
	m, err := decode(raw, d.MediaType)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	return m, nil
}

// lister makes the list of blobs.
type lister struct {
	image *Image
	seen  map[digest.Digest]bool
	done  map[digest.Digest]bool // manifests that are listed with all they need
}

func (l *lister) add(d v1.Descriptor) {
	if !l.seen[d.Digest] {
		l.seen[d.Digest] = true
		l.image.blobs = append(l.image.blobs, d)
	}
}

func (l *lister) list(ctx context.Context, d v1.Descriptor, m *manifest, depth int) error {
	if depth > maxDepth { // the cache does not look deeper, either
		return errors.New("indexes are nested too deeply")
	}
	if l.done[d.Digest] {
		return nil
	}
	if l.seen[d.Digest] { // what it needs would come after it, or would be missing
		return fmt.Errorf("manifest %s: is a layer or config of another, too", d.Digest)
	}
	l.done[d.Digest] = true
	for _, child := range m.Manifests {
		// An index may name something that is no manifest. It is a blob like any other then.
		if child.MediaType != "" && !isManifest(child.MediaType) {
			l.add(child)
			continue
		}
		cm, err := l.image.child(ctx, child)
		if err != nil {
			return err
		}
		// The cache and all runtimes believe the media type in the index.
		if child.MediaType == "" || isIndex(child.MediaType) != cm.isIndex() {
			return fmt.Errorf("manifest %s: is %q, and its index calls it %q", child.Digest, cm.mediaType, child.MediaType)
		}
		if err := l.list(ctx, child, cm, depth+1); err != nil {
			return err
		}
	}
	for _, layer := range m.Layers {
		if len(layer.URLs) == 0 { // the bytes of a layer with urls lie elsewhere, and registries may not give them
			l.add(layer)
		} else {
			l.image.elsewhere = append(l.image.elsewhere, layer)
		}
	}
	if m.Config != nil {
		l.add(*m.Config)
	}
	if !m.isIndex() {
		l.image.manifests = append(l.image.manifests, m)
	}
	l.add(v1.Descriptor{MediaType: m.mediaType, Digest: d.Digest, Size: d.Size, Platform: d.Platform, ArtifactType: d.ArtifactType})
	return nil
}
