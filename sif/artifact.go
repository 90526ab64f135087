package sif

import (
	"encoding/json"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Media types of a SIF in a registry, as Apptainer and SingularityCE push it.
const (
	LayerMediaType  = "application/vnd.sylabs.sif.layer.v1.sif"
	ConfigMediaType = "application/vnd.sylabs.sif.config.v1+json"
)

// IsLayer reports whether a layer with this media type is a SIF: it is LayerMediaType, or one of the two types that
// Singularity before 3.7 used, one of them misspelt.
// https://github.com/sylabs/singularity/issues/4437
func IsLayer(mediaType string) bool {
	switch mediaType {
	case LayerMediaType, "appliciation/vnd.sylabs.sif.layer.tar", "application/vnd.sylabs.sif.layer.tar":
		return true
	}
	return false
}

// Artifact returns the configuration and the manifest under which a registry holds the
// SIF with this digest and size in bytes; title is its file name. The same arguments
// give the same bytes.
func Artifact(sif digest.Digest, size int64, title string) (config, manifest []byte, err error) {
	config = []byte("{}")
	manifest, err = json.Marshal(v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: v1.MediaTypeImageManifest,
		Config:    descriptor(ConfigMediaType, config),
		Layers:    []v1.Descriptor{layer(sif, size, title)},
	})
	return config, manifest, err
}

func layer(sif digest.Digest, size int64, title string) v1.Descriptor {
	return v1.Descriptor{MediaType: LayerMediaType, Digest: sif, Size: size,
		Annotations: map[string]string{v1.AnnotationTitle: title}}
}

func descriptor(mediaType string, data []byte) v1.Descriptor {
	return v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
}
