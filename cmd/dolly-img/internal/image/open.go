package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/cachedir"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
	"github.com/dolly-img/dolly-img/oci"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/bytesize"
	"github.com/dolly-img/dolly-img/ring/errkind"
	"github.com/dolly-img/dolly-img/ring/printable"
	"github.com/dolly-img/dolly-img/sif"
)

// Options say which image is meant, and what is done with it on its way.
type Options struct {
	OCI         oci.Options
	NoCache     bool                             // keep nothing of a registry's image on this server
	CheckLayers bool                             // compare compressed layers with the image's config
	Cache       string                           // directory of this server's own cache; "" is the usual one
	Limits      cache.Limits                     // of that cache
	Log         *slog.Logger                     // nil is silent
	Warn        func(format string, args ...any) // nil is silent
	Note        func(format string, args ...any) // says what should be known; nil is silent
}

// Open opens IMAGE, whatever it is, and notes in m what only it knows: its
// name, where m has none, and the time of a file.
func Open(ctx context.Context, image string, o Options, m *meta.Transfer) (ring.Source, error) {
	name, err := imageName(ctx, image, &o)
	if err != nil {
		return nil, err
	}
	if name == "" {
		return openSIFImage(image, &o, m)
	}
	img, err := findImage(ctx, name, &o)
	if err != nil {
		return nil, err
	}
	var source ring.Source
	read := oci.Source(img) // where it lies
	defer func() {
		if source == nil {
			read.Close()
		}
	}()
	if err := oci.CheckPolicy(name, img.Name()); err != nil {
		return nil, err
	}
	ref := img.Ref()
	if ref == "" {
		if ref, err = localName(name, img); err != nil {
			return nil, fmt.Errorf("image %s: %w", image, err)
		}
	}
	m.Keep(ref)
	o.tell(image, img)
	if err := checkImageOutput(ctx, img, m); err != nil {
		return nil, err
	}
	if !o.NoCache && OfRegistry(name) {
		pulled, err := newPull(ctx, img, ref, o.Cache, o.Limits, o.Log)
		if err != nil {
			return nil, err
		}
		read = pulled
	}
	if err := checkArchs(ctx, image, img, read, &o); err != nil {
		return nil, err
	}
	source, err = checkLayers(ctx, img, read, &o)
	return source, err
}

// openSIFImage opens a SIF file.
func openSIFImage(image string, o *Options, m *meta.Transfer) (ring.Source, error) {
	if err := oci.CheckPolicy("sif:"+image, ""); err != nil {
		return nil, err
	}
	if strings.ContainsRune(o.OCI.Name, '@') {
		return nil, errkind.Errorf("sif-digest", "--name %s: a SIF file has no digest of a registry", o.OCI.Name)
	}
	m.Keep(cmp.Or(o.OCI.Name, cache.LocalRef(filepath.Base(image))))
	file, err := OpenSIF(image, m)
	if err != nil {
		return nil, err
	}
	if err := o.checkArch(image, file.Image.Arch); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// findImage finds an image that package oci knows. Where a registry does not give it, the error
// says whether this server's own cache has it.
func findImage(ctx context.Context, name string, o *Options) (*oci.Image, error) {
	img, err := oci.Open(ctx, name, o.OCI)
	switch {
	case err == nil:
		return img, nil
	case !OfRegistry(name):
		return nil, cutShort(err)
	case !errkind.Has(err):
		if had := o.had(name); had != "" {
			return nil, errkind.About("registry-cached", had, "%w", err)
		}
	}
	return nil, err
}

// checkArchs refuses an image for another platform than the one that was asked for, and warns of one
// for another than this machine's where none was.
func checkArchs(ctx context.Context, image string, img *oci.Image, read oci.Source, o *Options) error {
	archs, err := checkSIFBlobs(ctx, read)
	if err != nil {
		return fmt.Errorf("image %s: %w", image, err)
	}
	for _, arch := range archs {
		if err := o.checkArch(image, arch); err != nil {
			return err
		}
	}
	if o.OCI.Platform != "" || o.OCI.AllPlatforms {
		return nil
	}
	other, err := img.OtherPlatform(ctx, read)
	if err != nil {
		return fmt.Errorf("image %s: %w", image, err)
	}
	if other != "" {
		o.warnOf(image, other)
	}
	return nil
}

// checkLayers compares what an image says of itself, and has its layers compared with it while it is
// sent, where nothing else says what they are or the user asked for it.
func checkLayers(ctx context.Context, img *oci.Image, read oci.Source, o *Options) (ring.Source, error) {
	check := oci.CheckOptions{Layers: o.CheckLayers}
	if !o.NoCache {
		check.Known = func() oci.Known {
			c, err := cachedir.Create(o.Cache)
			if err != nil {
				if o.Log != nil {
					o.Log.Debug("layers that were found right are not remembered", "error", err)
				}
				return nil
			}
			return c
		}
	}
	checked, err := img.Check(ctx, read, check)
	if err != nil {
		return nil, err
	}
	return checked, nil
}

// checkSIFBlobs reads of an image that is a SIF what package sif checks of a file, before anything
// of it is sent, and tells their architectures.
func checkSIFBlobs(ctx context.Context, source ring.Source) (archs []string, err error) {
	blobs, err := source.Blobs(ctx)
	if err != nil {
		return nil, err
	}
	for _, d := range blobs {
		if !sif.IsLayer(d.MediaType) {
			continue
		}
		file, err := sif.Inspect(&blobAt{ctx: ctx, source: source, d: d}, d.Size)
		if err == nil {
			err = file.CheckRunnable()
		}
		if err != nil {
			return nil, fmt.Errorf("its SIF: %w", err)
		}
		archs = append(archs, file.Arch)
	}
	return archs, nil
}

// blobAt reads a blob at any place. Its beginning, in which mostly all is that is asked for, it
// reads once.
type blobAt struct {
	ctx    context.Context
	source ring.Opener
	d      v1.Descriptor
	head   []byte
}

func (b *blobAt) ReadAt(p []byte, off int64) (int, error) {
	if b.head == nil {
		b.head = make([]byte, min(b.d.Size, 64<<10))
		if _, err := b.read(b.head, 0); err != nil {
			return 0, err
		}
	}
	if off+int64(len(p)) <= int64(len(b.head)) {
		return copy(p, b.head[off:]), nil
	}
	return b.read(p, off)
}

func (b *blobAt) read(p []byte, off int64) (int, error) {
	rc, err := b.source.Open(b.ctx, b.d, off)
	if err != nil {
		return 0, err
	}
	defer rc.Close()
	return io.ReadFull(rc, p)
}

// openSIF opens a SIF file, and notes in m what only the file knows.
func OpenSIF(image string, m *meta.Transfer) (*sif.File, error) {
	f, err := sif.Open(image)
	if err != nil {
		return nil, err
	}
	m.Mtime = f.Info().ModTime()
	m.KeepMode(f.Info().Mode())
	return f, nil
}

// checkImageOutput says early what every node would: only a SIF can be put at a path.
func checkImageOutput(ctx context.Context, img *oci.Image, m *meta.Transfer) error {
	if m.Output == "" || m.Format != "" {
		return nil
	}
	blobs, err := img.Blobs(ctx)
	if err != nil {
		return err
	}
	for _, d := range blobs {
		if sif.IsLayer(d.MediaType) {
			return nil
		}
	}
	return errkind.About("output-no-sif", m.Output,
		"--output %s: only a SIF can be put at a path as it is, and this image holds none", m.Output)
}

// imageName is IMAGE as package oci wants it, and "" where it is a SIF. A path is told
// by its content, not by its name.
func imageName(ctx context.Context, image string, o *Options) (string, error) {
	if t, _ := oci.Split(image); t != "" {
		return image, nil
	}
	kind, err := sniff(image)
	if err != nil || kind == kindSIF {
		return "", err
	}
	if kind == kindTar {
		transport, note, err := oci.Kind(ctx, image, o.OCI)
		if note != "" && o.Warn != nil {
			o.Warn("image %s: %s", image, printable.Line(note))
		}
		switch {
		case errors.Is(err, context.Canceled):
			return "", err
		case errors.Is(err, io.ErrUnexpectedEOF):
			return "", cutShort(fmt.Errorf("image %s: %w", image, err))
		case errkind.Has(err):
			return "", fmt.Errorf("image %s: %w", image, err)
		case err != nil:
			return "", errkind.Errorf("image-unknown", "image %s is no container image: %w", image, err)
		case transport == "":
			return "", errkind.Errorf("image-unknown", "image %s is a tar archive, but of no container image", image)
		}
		kind = transport
	}
	if strings.ContainsRune(image, ':') {
		return "", errkind.Errorf("image-colon", "image %s: a colon in the path of an image that may be followed by :REF", image)
	}
	return kind + ":" + image, nil
}

// cutShort says what it means that an archive ends too early.
func cutShort(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return errkind.Errorf("image-cut", "%w: it is damaged or cut short", err)
	}
	return err
}

// localName is what an image of a layout or an archive is kept as that has no name: its file's or directory's.
func localName(name string, img *oci.Image) (string, error) {
	_, path := oci.Split(name)
	path, ref, _ := strings.Cut(path, ":")
	return img.LocalName(strings.TrimSuffix(cache.LocalRef(filepath.Base(path)), ":latest"), ref)
}

// checkArch compares the architecture of a SIF with the platform that was asked for; where none was
// it only warns of one that this machine is not.
func (f *Options) checkArch(image, arch string) error {
	if arch == "" || arch == "unknown" {
		return nil
	}
	other, err := oci.Differs(arch, f.OCI.Platform)
	switch {
	case err != nil:
		return err
	case other == "":
	case f.OCI.Platform != "":
		return errkind.About("platform-other", other, "image %s is for %s, not for %s", image, other, f.OCI.Platform)
	default:
		f.warnOf(image, other)
	}
	return nil
}

// tell says what the user should know of an image that was found: which of several variants it is, and what of it
// is left out.
func (f *Options) tell(image string, img *oci.Image) {
	if f.Note == nil {
		return
	}
	if layers := img.Elsewhere(); len(layers) > 0 {
		size := int64(0)
		for _, d := range layers {
			size += d.Size
		}
		f.Note("image %s: layers that have urls are left out, %d with %s: whoever starts the image gets them from there", image, len(layers), bytesize.Text(size))
	}
	if chosen, of := img.Variant(); chosen != "" {
		f.Note("image %s is there for %s: %s is taken; --platform takes another", image, strings.Join(of, ", "), chosen)
	}
}

func (f *Options) warnOf(image, platform string) {
	if f.Warn != nil {
		f.Warn("image %s is for %s, which this machine is not known to run; --platform %s says that the nodes can", image, platform, platform)
	}
}

// had is what to push instead where a registry cannot be asked, "" where this server's own cache has
// no such image.
func (f *Options) had(image string) string {
	c, err := cachedir.Open(f.Cache)
	if err != nil || f.NoCache {
		return ""
	}
	ref, err := Cached(c, image)
	if err != nil {
		return ""
	}
	if _, err := c.Path(ref); err != nil {
		return ""
	}
	return "oci:" + c.Dir() + ":" + ref // a SIF's file would not tell its name
}

// SIFDigest is the digest of the SIF that an image holds, which is what sha256sum says of the file; "" where
// it holds none, or several.
func SIFDigest(ctx context.Context, source ring.Source) string {
	blobs, err := source.Blobs(ctx)
	if err != nil {
		return ""
	}
	found := ""
	for _, d := range blobs {
		if !sif.IsLayer(d.MediaType) {
			continue
		}
		if found != "" {
			return ""
		}
		found = d.Digest.String()
	}
	return found
}
