package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

const mediaTypeDockerConfig = "application/vnd.docker.container.image.v1+json"

// layer is a compressed blob that has to unpack to the bytes of a diff_id.
type layer struct {
	v1.Descriptor
	diff digest.Digest
}

// opener is Opener.Open.
type opener func(ctx context.Context, d v1.Descriptor, off int64) (io.ReadCloser, error)

// agree compares the layers of every manifest with the diff_ids of its config, and
// returns the compressed layers, which have to be unpacked to be compared.
//
// A runtime takes the number and the order of the layers from the manifest, and the digests of
// the unpacked bytes from the config. If the two disagree, some tools run an image with other
// files in it, or with none (https://github.com/moby/moby/issues/47065).
func (i *Image) agree(ctx context.Context, from Source) (packed []layer, err error) {
	for _, m := range i.manifests {
		if m.Config == nil || m.Config.MediaType != v1.MediaTypeImageConfig && m.Config.MediaType != mediaTypeDockerConfig {
			continue // the config of an artifact says nothing about layers
		}
		diffs, err := diffIDs(ctx, i.opener(from), *m.Config)
		if err != nil {
			return nil, fmt.Errorf("config %s: %w", m.Config.Digest, err)
		}
		if diffs == nil {
			continue // a config without rootfs says nothing about layers, either
		}
		if packed, err = m.agree(ctx, from.Open, diffs, packed); err != nil {
			return nil, err
		}
	}
	return packed, nil
}

// agree compares the layers of a manifest with diffs, and appends the compressed ones
// to packed.
func (m *manifest) agree(ctx context.Context, open opener, diffs []digest.Digest, packed []layer) ([]layer, error) {
	if len(diffs) != len(m.Layers) {
		return nil, errkind.Errorf("image-disagrees", "the manifest has %d layers, but the config of the image has %d", len(m.Layers), len(diffs))
	}
	for n, d := range m.Layers {
		diff := diffs[n]
		if err := diff.Validate(); err != nil {
			return nil, fmt.Errorf("config %s: diff_id %q of layer %d: %w", m.Config.Digest, diff, n+1, err)
		}
		switch {
		case len(d.URLs) > 0 || d.Digest == diff && !saysCompressed(d):
			continue
		case d.Digest != diff && slices.Contains(diffs, d.Digest): // whatever its media type says of it
			return nil, errkind.Errorf("image-disagrees", "the layers stand in another order in the manifest than in the config of the image: layer %d is %s, not %s", n+1, d.Digest, diff)
		}
		kind, err := compression(ctx, open, d)
		switch {
		case err != nil:
			return nil, fmt.Errorf("layer %d: %w", n+1, err)
		case kind == compressed: // also where the diff_id is that of the compressed bytes, which they cannot unpack to
			packed = append(packed, layer{d, diff})
		case kind == unpacked:
			return nil, errkind.Errorf("image-disagrees", "layer %d of the manifest is %s, but the config of the image has %s there", n+1, d.Digest, diff)
		}
	}
	return packed, nil
}

const (
	unpacked   = iota // the bytes of the diff_id
	compressed        // only unpacking tells what is in it
	unknown           // left to those who know this kind of layer
)

// saysCompressed reports whether the media type of a layer says that it is compressed.
func saysCompressed(d v1.Descriptor) bool {
	return strings.HasSuffix(d.MediaType, "gzip") || strings.HasSuffix(d.MediaType, "zstd")
}

// compression says what a layer is by its media type. Some images call a compressed layer a plain tar, so
// compression looks at the first bytes of a layer with that type.
func compression(ctx context.Context, open opener, d v1.Descriptor) (int, error) {
	switch {
	case saysCompressed(d):
		return compressed, nil
	case !strings.HasSuffix(d.MediaType, ".tar"):
		return unknown, nil
	}
	rc, err := open(ctx, d, 0)
	if err != nil {
		return unknown, err
	}
	defer rc.Close()
	head, err := firstBytes(rc)
	if err == nil && unpacker(head) != nil {
		return compressed, nil
	}
	return unpacked, err
}

// firstBytes returns as many bytes as tell how a file is compressed, or fewer if the file is shorter.
func firstBytes(r io.Reader) ([]byte, error) {
	head := make([]byte, 4)
	n, err := io.ReadFull(r, head)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return head[:n], err
}

// diffIDs returns the diff_ids of a config, or nil if it has no rootfs.
func diffIDs(ctx context.Context, open opener, d v1.Descriptor) ([]digest.Digest, error) {
	if d.Size > MaxManifest {
		return nil, fmt.Errorf("%d bytes, at most %d", d.Size, MaxManifest)
	}
	raw, err := readAll(open(ctx, d, 0))
	if err != nil {
		return nil, err
	}
	return decodeDiffIDs(raw)
}

func decodeDiffIDs(raw []byte) ([]digest.Digest, error) {
	var config struct {
		RootFS *struct {
			DiffIDs []digest.Digest `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := json.Unmarshal(raw, &config); err != nil {
		return nil, err
	}
	switch {
	case config.RootFS == nil:
		return nil, nil
	case config.RootFS.DiffIDs == nil:
		return []digest.Digest{}, nil
	case len(config.RootFS.DiffIDs) > MaxLayers:
		return nil, fmt.Errorf("%d diff_ids, at most %d", len(config.RootFS.DiffIDs), MaxLayers)
	}
	return config.RootFS.DiffIDs, nil
}
