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

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/cachedir"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
	"github.com/dolly-img/dolly-img/oci"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/bytesize"
	"github.com/dolly-img/dolly-img/ring/errkind"
	"github.com/dolly-img/dolly-img/sif"
)

// Options says which image is meant, and what is done with it on its way.
type Options struct {
	OCI oci.Options
	// NoCache keeps nothing of a registry's image on this server.
	NoCache bool
	// Keep is the name under which this server's own cache keeps whatever is opened. If it is "", images of registries are kept,
	// under the names that nodes keep them under. NoCache comes before it.
	Keep string
	// Digest is the one that the image must have. "" lets any through.
	Digest digest.Digest
	// CheckLayers compares compressed layers with the config of the image while they are sent.
	CheckLayers bool
	// Cache is the directory of this server's own cache, "" for the usual one, and Limits are the limits of that cache.
	Cache  string
	Limits cache.Limits
	Log    *slog.Logger // nil is silent
	// Warn and Note are called with what the user should know though it is no error. Like that of an error, the kind of
	// a warning or a note says what may be done about it. Either may be nil.
	Warn func(warning error)
	Note func(note error)
}

// Open opens IMAGE, whatever it is. It notes in m what only the image knows: its name, and the time of a file.
func Open(ctx context.Context, image string, o Options, m *meta.Transfer) (ring.Source, error) {
	name, err := imageName(ctx, image, &o)
	if err != nil {
		return nil, err
	}
	if name == "" {
		return openSIFImage(ctx, image, &o, m)
	}
	img, err := findImage(ctx, name, &o)
	if err != nil {
		return nil, err
	}
	var source ring.Source
	read := oci.Source(img) // the image where it lies; a pull takes its place below
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
	if err := o.checkDigest(image, img.Root().Digest); err != nil {
		return nil, err
	}
	o.tell(image, img)
	if err := checkImageOutput(ctx, img, m); err != nil {
		return nil, err
	}
	if !o.NoCache && (o.Keep != "" || OfRegistry(name)) {
		pulled, err := newPull(ctx, img, cmp.Or(o.Keep, ref), o.Cache, o.Limits, o.Log)
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

// openSIFImage opens IMAGE, which is a SIF file.
func openSIFImage(ctx context.Context, image string, o *Options, m *meta.Transfer) (ring.Source, error) {
	if err := oci.CheckPolicy("sif:"+image, ""); err != nil {
		return nil, err
	}
	if strings.ContainsRune(o.OCI.Name, '@') {
		return nil, errkind.Errorf("sif-digest", "name %s: a SIF file has no digest of a registry", o.OCI.Name)
	}
	m.Keep(cmp.Or(o.OCI.Name, cache.LocalRef(filepath.Base(image))))
	file, err := OpenSIF(image, m)
	if err != nil {
		return nil, err
	}
	var source ring.Source = file
	if err = o.checkArch(image, file.Image.Arch); err == nil {
		err = o.checkSIFDigest(ctx, image, file)
	}
	if err == nil && o.Keep != "" && !o.NoCache {
		source, err = newPull(ctx, file, o.Keep, o.Cache, o.Limits, o.Log)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return source, nil
}

// checkSIFDigest compares the digest that the manifest of a SIF will have with Digest. It reads all of the file, if that is set.
func (o *Options) checkSIFDigest(ctx context.Context, image string, file *sif.File) error {
	if o.Digest == "" {
		return nil
	}
	blobs, err := file.Blobs(ctx)
	if err != nil {
		return err
	}
	return o.checkDigest(image, blobs[len(blobs)-1].Digest)
}

// checkDigest returns an error if an image has another digest than it must have.
func (o *Options) checkDigest(image string, d digest.Digest) error {
	if o.Digest == "" || o.Digest == d {
		return nil
	}
	return fmt.Errorf("image %s: has the digest %s now, not %s", image, d, o.Digest)
}

// findImage finds an image that package oci can open. If a registry does not give it, the error says whether this
// server's own cache has it.
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

// checkArchs returns an error if the image is for another platform than the user asked for. If the user asked for none,
// it warns of an image that is for another platform than this machine.
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

// checkLayers compares the manifest of an image with its config. The source that it returns also compares the layers with
// the config while they are sent, if no digest does that already or the user asked for it.
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

// checkSIFBlobs checks the SIFs that an image holds, as package sif checks a file, before anything is sent. It reads only
// their headers, and returns their architectures.
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

// blobAt reads a blob at any offset. It reads the beginning of the blob once and keeps it, because most reads are there.
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

// OpenSIF opens a SIF file, and notes in m what only the file knows: its time and its permission bits.
func OpenSIF(image string, m *meta.Transfer) (*sif.File, error) {
	f, err := sif.Open(image)
	if err != nil {
		return nil, err
	}
	m.Mtime = f.Info().ModTime()
	m.KeepMode(f.Info().Mode())
	return f, nil
}

// checkImageOutput returns early the error that every node would return: only a SIF can be put at a path.
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
		"output %s: only a SIF can be put at a path as it is, and this image holds none", m.Output)
}

// localName returns the name of an image that has none, as in a layout or an archive. It is made of the name of the file
// or directory.
func localName(name string, img *oci.Image) (string, error) {
	_, path := oci.Split(name)
	path, ref, _ := strings.Cut(path, ":")
	return img.LocalName(strings.TrimSuffix(cache.LocalRef(filepath.Base(path)), ":latest"), ref)
}

// checkArch returns an error if a SIF has another architecture than the user asked for. If the user asked for none, it
// warns of an architecture that is not the one of this machine.
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

// tell notes what the user should know about an image that was found: which of several variants it is, and which layers
// are left out.
func (f *Options) tell(image string, img *oci.Image) {
	if f.Note == nil {
		return
	}
	if layers := img.Elsewhere(); len(layers) > 0 {
		size := int64(0)
		for _, d := range layers {
			size += d.Size
		}
		f.Note(fmt.Errorf("image %s: %d layers with %s are left out, because they have urls: whoever starts the image gets them from there",
			image, len(layers), bytesize.Text(size)))
	}
	if chosen, of := img.Variant(); chosen != "" {
		f.Note(errkind.Errorf("variant-chosen", "image %s is there for %s: %s is taken", image, strings.Join(of, ", "), chosen))
	}
}

// warnOf warns that the image is for another platform than this machine.
func (f *Options) warnOf(image, platform string) {
	if f.Warn != nil {
		f.Warn(errkind.About("platform-foreign", platform, "image %s is for %s, which this machine is not known to run", image, platform))
	}
}

// had returns what to push instead if a registry cannot be asked: the image in this server's own cache, or "" if that does
// not have it.
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
	return "oci:" + c.Dir() + ":" + ref // this keeps the name, which the file of a SIF does not have
}

// SIFDigest returns the digest of the SIF that an image holds, which is also what sha256sum prints for the file. It returns
// "" if the image holds no SIF, or several.
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
