package oci

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Kind returns the transport that reads the image in a tar archive, or "" if the archive holds
// no image.
//
// New versions of docker save write both kinds into one archive: a layout, and a
// manifest.json that names the same files. Kind takes such an archive for an OCI archive, which keeps the
// manifest and its digest. If the layout cannot be read as o asks, does not agree with
// its own config, or is another image than the one in manifest.json, Kind takes it for a docker
// archive, whose layers are compared with the config. Note then says why.
func Kind(ctx context.Context, name string, o Options) (transport, note string, err error) {
	a, err := openArchive(ctx, name)
	if err != nil {
		return "", "", err
	}
	defer a.Close()
	_, noLayout := a.find(v1.ImageLayoutFile)
	_, noList := a.find("manifest.json")
	switch {
	case noLayout != nil && noList != nil:
		return "", "", nil
	case noLayout != nil:
		return "docker-archive", "", nil
	case noList != nil:
		return "oci-archive", "", nil
	}
	why := a.disagrees(ctx, name, o)
	if why == nil || ctx.Err() != nil {
		return "oci-archive", "", ctx.Err()
	}
	saved, err := Open(ctx, "docker-archive:"+name, o)
	if err != nil {
		return "oci-archive", "", nil // opening it returns the error again
	}
	return "docker-archive", fmt.Sprintf("the image is taken as manifest.json has it, not index.json: %v", why), saved.Close()
}

// disagrees returns an error if the layout in an archive is another image than its manifest.json has.
func (a *archive) disagrees(ctx context.Context, name string, o Options) error {
	i, err := Open(ctx, "oci-archive:"+name, o)
	if err != nil {
		return err
	}
	defer i.Close()
	if _, err := i.agree(ctx, i); err != nil {
		return err
	}
	raw, err := readSmall(ctx, a, "manifest.json")
	if err != nil {
		return err
	}
	list, err := decodeDockerImages(raw)
	if err != nil || len(i.manifests) != 1 {
		return nil // there is nothing to compare
	}
	m := i.manifests[0]
	for _, image := range list {
		config, err := readSmall(ctx, a, image.Config)
		if err == nil && digest.FromBytes(config) == m.Config.Digest {
			return m.sameLayers(image.Layers)
		}
	}
	if i.root.Platform != nil {
		return nil // the layout has several platforms, and manifest.json has room for one only
	}
	return errors.New("they name different images")
}

// sameLayers compares the layers with the files that a manifest.json names, if the names of these files have
// their digests.
func (m *manifest) sameLayers(files []string) error {
	same := slices.EqualFunc(m.Layers, files, func(d v1.Descriptor, file string) bool {
		return !strings.HasPrefix(file, v1.ImageBlobsDir+"/") || file == blobFile(d)
	})
	if !same {
		return errors.New("they name different layers")
	}
	return nil
}
