package main

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
	"github.com/dolly-img/dolly-img/oci"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/sif"
)

// openImage opens IMAGE, whatever it is, and notes in m what only it knows: its
// name, where m has none, and the time of a file. The limits and the log are of this server's own cache.
func openImage(ctx context.Context, image string, flags *imageFlags, limits cache.Limits, log *slog.Logger, o oci.Options, m *meta) (ring.Source, error) {
	name, err := imageName(ctx, image, flags, o)
	if err != nil {
		return nil, err
	}
	if name == "" {
		return openSIFImage(image, flags, o, m)
	}
	img, err := findImage(ctx, name, flags, o)
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
	m.name(ref)
	flags.tell(image, img)
	if err := checkImageOutput(ctx, img, m); err != nil {
		return nil, err
	}
	if !flags.noCache && ofRegistry(name) {
		pulled, err := newPull(ctx, img, ref, flags.cache, limits, log)
		if err != nil {
			return nil, err
		}
		read = pulled
	}
	if err := checkArchs(ctx, image, img, read, flags); err != nil {
		return nil, err
	}
	source, err = checkLayers(ctx, img, read, flags, log)
	return source, err
}

// openSIFImage opens a SIF file.
func openSIFImage(image string, flags *imageFlags, o oci.Options, m *meta) (ring.Source, error) {
	if err := oci.CheckPolicy("sif:"+image, ""); err != nil {
		return nil, err
	}
	if strings.ContainsRune(o.Name, '@') {
		return nil, hintf("give a tag in place of the digest", "--name %s: a SIF file has no digest of a registry", o.Name)
	}
	m.name(cmp.Or(o.Name, cache.LocalRef(filepath.Base(image))))
	file, err := openSIF(image, m)
	if err != nil {
		return nil, err
	}
	if err := flags.checkArch(image, file.Image.Arch); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// findImage finds an image that package oci knows. Where a registry does not give it, the error
// says whether this server's own cache has it.
func findImage(ctx context.Context, name string, flags *imageFlags, o oci.Options) (*oci.Image, error) {
	img, err := oci.Open(ctx, name, o)
	switch {
	case err == nil:
		return img, nil
	case !ofRegistry(name):
		return nil, cutShort(err)
	case hintOf(err) == "":
		if had := flags.had(name); had != "" {
			return nil, hintf("this server's own cache has it as it was: push "+had, "%w", err)
		}
	}
	return nil, err
}

// checkArchs refuses an image for another platform than the one that was asked for, and warns of one
// for another than this machine's where none was.
func checkArchs(ctx context.Context, image string, img *oci.Image, read oci.Source, flags *imageFlags) error {
	archs, err := checkSIFBlobs(ctx, read)
	if err != nil {
		return fmt.Errorf("image %s: %w", image, err)
	}
	for _, arch := range archs {
		if err := flags.checkArch(image, arch); err != nil {
			return err
		}
	}
	if flags.platform != "" || flags.all {
		return nil
	}
	other, err := img.OtherPlatform(ctx, read)
	if err != nil {
		return fmt.Errorf("image %s: %w", image, err)
	}
	if other != "" {
		flags.warnOf(image, other)
	}
	return nil
}

// checkLayers compares what an image says of itself, and has its layers compared with it while it is
// sent, where nothing else says what they are or the user asked for it.
func checkLayers(ctx context.Context, img *oci.Image, read oci.Source, flags *imageFlags, log *slog.Logger) (ring.Source, error) {
	o := oci.CheckOptions{Layers: flags.checkLayers}
	if !flags.noCache {
		o.Known = func() oci.Known {
			c, err := ownCache(flags.cache)
			if err != nil {
				if log != nil {
					log.Debug("layers that were found right are not remembered", "error", err)
				}
				return nil
			}
			return c
		}
	}
	checked, err := img.Check(ctx, read, o)
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
func openSIF(image string, m *meta) (*sif.File, error) {
	f, err := sif.Open(image)
	if err != nil {
		return nil, err
	}
	m.Mtime = f.Info().ModTime()
	m.keepMode(f.Info().Mode())
	return f, nil
}

// checkImageOutput says early what every node would: only a SIF can be put at a path.
func checkImageOutput(ctx context.Context, img *oci.Image, m *meta) error {
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
	return hintf("--output oci-archive:"+m.Output+" puts an archive there, oci:"+m.Output+" a directory; without --output nodes keep it in their cache, from which runtimes start it",
		"--output %s: only a SIF can be put at a path as it is, and this image holds none", m.Output)
}

// imageName is IMAGE as package oci wants it, and "" where it is a SIF. A path is told
// by its content, not by its name.
func imageName(ctx context.Context, image string, flags *imageFlags, o oci.Options) (string, error) {
	if t, _ := oci.Split(image); t != "" {
		return image, nil
	}
	kind, err := sniff(image)
	if err != nil || kind == kindSIF {
		return "", err
	}
	if kind == kindTar {
		transport, note, err := oci.Kind(ctx, image, o)
		if note != "" && flags.warn != nil {
			flags.warn("image %s: %s", image, printable(note))
		}
		switch {
		case errors.Is(err, context.Canceled):
			return "", err
		case errors.Is(err, io.ErrUnexpectedEOF):
			return "", cutShort(fmt.Errorf("image %s: %w", image, err))
		case hintOf(err) != "":
			return "", fmt.Errorf("image %s: %w", image, err)
		case err != nil:
			return "", hintf(supported, "image %s is no container image: %w", image, err)
		case transport == "":
			return "", hintf(supported, "image %s is a tar archive, but of no container image", image)
		}
		kind = transport
	}
	if strings.ContainsRune(image, ':') {
		return "", hintf("rename or link it", "image %s: a colon in the path of an image that may be followed by :REF", image)
	}
	return kind + ":" + image, nil
}

// cutShort says what it means that an archive ends too early.
func cutShort(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return hintf("copy it again", "%w: it is damaged or cut short", err)
	}
	return err
}

// localName is what an image of a layout or an archive is kept as that has no name: its file's or directory's.
func localName(name string, img *oci.Image) (string, error) {
	_, path := oci.Split(name)
	path, ref, _ := strings.Cut(path, ":")
	return img.LocalName(strings.TrimSuffix(cache.LocalRef(filepath.Base(path)), ":latest"), ref)
}

// name is what the image shall be called in the cache, unless it is not kept.
func (m *meta) name(ref string) {
	if !m.Discard && !m.NoKeep {
		m.Ref = ref
	}
}
