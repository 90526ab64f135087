package oci

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

// dockerArchive is what "docker save" writes: configs and layers of one or more images, in
// files that manifest.json names. The archive has no manifest like those in registries, so this
// package makes one. The same archive gives the same manifest. Its layers are the files as they
// are in the archive: mostly not compressed, and with the digests that the config has as diff_ids.
// https://github.com/moby/docker-image-spec/blob/main/spec.md#combined-image-json--filesystem-changeset-format
type dockerArchive struct {
	a     *archive
	raw   []byte // the manifest
	paths map[digest.Digest]string
}

// dockerImage is an entry of manifest.json.
type dockerImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

func openDockerArchive(ctx context.Context, s string) (_ store, name string, err error) {
	file, ref, err := splitPath(s)
	if err != nil {
		return nil, "", err
	}
	a, err := openArchive(ctx, file)
	if err != nil {
		return nil, "", err
	}
	defer func() {
		if err != nil {
			a.Close()
		}
	}()
	raw, err := readSmall(ctx, a, "manifest.json")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", errors.New("not an archive of docker save: no manifest.json")
	}
	if err != nil {
		return nil, "", fmt.Errorf("manifest.json: %w", err)
	}
	list, err := decodeDockerImages(raw)
	if err != nil {
		return nil, "", fmt.Errorf("manifest.json: %w", err)
	}
	image, name, err := pickDocker(list, ref)
	if err != nil {
		return nil, "", err
	}
	d := &dockerArchive{a: a, paths: map[digest.Digest]string{}}
	if err := d.build(ctx, image); err != nil {
		return nil, "", err
	}
	return d, name, nil
}

// decodeDockerImages reads a manifest.json.
func decodeDockerImages(raw []byte) (list []dockerImage, err error) {
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, err
	}
	if len(list) > MaxIndex {
		return nil, fmt.Errorf("%d images, at most %d", len(list), MaxIndex)
	}
	for i, image := range list {
		if len(image.Layers) > MaxLayers {
			return nil, fmt.Errorf("image %d: %d layers, at most %d", i, len(image.Layers), MaxLayers)
		}
	}
	return list, nil
}

// pickDocker returns the image that a tag names, or the only image, and its tag as it is written in the archive.
func pickDocker(list []dockerImage, ref string) (dockerImage, string, error) {
	var tags, found []string
	var images []dockerImage // the images with these tags
	for _, image := range list {
		for _, tag := range image.RepoTags {
			if ref != "" && familiar(tag) == familiar(ref) {
				images, found = append(images, image), append(found, tag)
			}
			tags = append(tags, tag)
		}
	}
	all := strings.Join(tags[:min(len(tags), 10)], ", ")
	switch {
	case len(list) == 0:
		return dockerImage{}, "", errors.New("there is no image in it")
	case slices.ContainsFunc(images, func(o dockerImage) bool {
		return o.Config != images[0].Config || !slices.Equal(o.Layers, images[0].Layers)
	}):
		return dockerImage{}, "", errkind.Errorf("archive-tags", "%q may be any of %d images: %s", ref, len(images), strings.Join(found, ", "))
	case len(images) > 0:
		return images[0], found[0], nil
	case ref != "":
		return dockerImage{}, "", errkind.Errorf("ref-unknown", "has no %q, only %s", ref, all)
	case len(list) > 1:
		return dockerImage{}, "", errkind.Errorf("ref-missing", "has %d images: %s", len(list), all)
	case len(list[0].RepoTags) == 0:
		return list[0], "", nil
	}
	return list[0], list[0].RepoTags[0], nil
}

// familiar returns the full name of a tag, or the tag itself if it is no name.
func familiar(tag string) string {
	if full, err := FullName(tag); err == nil {
		return full
	}
	return tag
}

// build makes the manifest. It reads the layers that it has to read in parallel.
func (d *dockerArchive) build(ctx context.Context, image dockerImage) error {
	config, err := readSmall(ctx, d.a, image.Config)
	if err != nil {
		return fmt.Errorf("config %q: %w", image.Config, err)
	}
	diffs, err := decodeDiffIDs(config)
	if err != nil {
		return fmt.Errorf("config %q: %w", image.Config, err)
	}
	if len(diffs) != len(image.Layers) {
		return errkind.Errorf("image-disagrees", "config %q: %d diff_ids for %d layers", image.Config, len(diffs), len(image.Layers))
	}
	c := v1.Descriptor{MediaType: v1.MediaTypeImageConfig, Digest: digest.FromBytes(config), Size: int64(len(config))}
	d.paths[c.Digest] = image.Config
	m := v1.Manifest{Versioned: versioned, MediaType: v1.MediaTypeImageManifest, Config: c, Layers: make([]v1.Descriptor, len(image.Layers))}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(d.a.readers())
	for i, name := range image.Layers {
		group.Go(func() (err error) {
			if m.Layers[i], err = d.layer(ctx, name, diffs[i]); err != nil {
				return fmt.Errorf("layer %q: %w", name, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for i, layer := range m.Layers {
		d.paths[layer.Digest] = image.Layers[i]
	}
	d.raw, err = json.Marshal(m)
	return err
}

// layer describes the file of a layer. Only a compressed file has to be read for its digest. The format does not allow
// compressed files, but some tools write them.
func (d *dockerArchive) layer(ctx context.Context, name string, diff digest.Digest) (v1.Descriptor, error) {
	if err := diff.Validate(); err != nil {
		return v1.Descriptor{}, fmt.Errorf("diff_id %q: %w", diff, err)
	}
	rc, size, err := d.a.open(ctx, name, 0)
	if err != nil {
		return v1.Descriptor{}, err
	}
	defer rc.Close()
	layer := v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: diff, Size: size}
	head, err := firstBytes(rc)
	switch {
	case err != nil:
		return v1.Descriptor{}, err
	case bytes.HasPrefix(head, []byte("\xfd7zX")), bytes.HasPrefix(head, []byte("BZh")):
		return v1.Descriptor{}, errkind.Errorf("archive-layer", "is compressed, but neither with gzip nor with zstd")
	case unpacker(head) == nil:
		return layer, nil
	case head[0] == 0x1f:
		layer.MediaType = v1.MediaTypeImageLayerGzip
	default:
		layer.MediaType = v1.MediaTypeImageLayerZstd
	}
	sum := digest.Canonical.Digester()
	_, _ = sum.Hash().Write(head)
	if _, err := io.CopyBuffer(sum.Hash(), &untilDone{ctx, rc}, make([]byte, 256<<10)); err != nil {
		return v1.Descriptor{}, err
	}
	layer.Digest = sum.Digest()
	return layer, nil
}

func (d *dockerArchive) rootManifest(context.Context) ([]byte, string, error) {
	return slices.Clone(d.raw), v1.MediaTypeImageManifest, nil
}

func (d *dockerArchive) manifest(context.Context, v1.Descriptor) ([]byte, error) {
	return nil, fs.ErrNotExist // a docker save archive has no index
}

func (d *dockerArchive) blob(ctx context.Context, b v1.Descriptor, off int64) (io.ReadCloser, error) {
	name, ok := d.paths[b.Digest]
	if !ok {
		return nil, fs.ErrNotExist
	}
	rc, _, err := d.a.open(ctx, name, off)
	return rc, err
}

func (d *dockerArchive) readers() int { return d.a.readers() }

func (d *dockerArchive) Close() error { return d.a.Close() }
