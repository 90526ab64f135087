package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

// Docker has media types of its own for the JSON forms of the specification.
const (
	mediaTypeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	mediaTypeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	mediaTypeDockerSchema1  = "application/vnd.docker.distribution.manifest.v1"
)

// manifest is the manifest of one image, or an index: a blob that references other blobs.
type manifest struct {
	SchemaVersion int             `json:"schemaVersion"`
	MediaType     string          `json:"mediaType"`
	ArtifactType  string          `json:"artifactType"`
	Config        *v1.Descriptor  `json:"config"`
	Layers        []v1.Descriptor `json:"layers"`
	Manifests     []v1.Descriptor `json:"manifests"`

	mediaType string // its type, as it says itself or as its descriptor says
}

func (m *manifest) isIndex() bool { return isIndex(m.mediaType) }

func isIndex(mediaType string) bool {
	return mediaType == v1.MediaTypeImageIndex || mediaType == mediaTypeDockerList
}

// isManifest reports whether this is the media type of a manifest or an index.
func isManifest(mediaType string) bool {
	return isIndex(mediaType) || mediaType == v1.MediaTypeImageManifest || mediaType == mediaTypeDockerManifest
}

// artifactType returns the type of an artifact, or "" for an image.
func (m *manifest) artifactType() string { return m.ArtifactType }

// decode reads a manifest or an index. It enforces all limits and checks every descriptor.
// Told is the media type that came with it; a type in the manifest itself has precedence.
func decode(raw []byte, told string) (*manifest, error) {
	if len(raw) > MaxManifest {
		return nil, fmt.Errorf("manifest of %d bytes, at most %d", len(raw), MaxManifest)
	}
	m := new(manifest)
	if err := json.Unmarshal(raw, m); err != nil {
		return nil, fmt.Errorf("malformed manifest: %w", err)
	}
	m.mediaType = m.MediaType
	if m.mediaType == "" {
		m.mediaType, _, _ = strings.Cut(told, ";")
	}
	if m.SchemaVersion == 1 || strings.HasPrefix(m.mediaType, mediaTypeDockerSchema1) {
		return nil, errkind.Errorf("manifest-schema1",
			"manifest of Docker's schema 1, which nobody can verify")
	}
	if m.SchemaVersion != 2 {
		return nil, fmt.Errorf("manifest with schemaVersion %d, not 2", m.SchemaVersion)
	}
	// We could read a document that is both a manifest and an index as the one, and a runtime as the other.
	// https://github.com/opencontainers/distribution-spec/security/advisories/GHSA-mc8v-mgrf-8f4m
	both := len(m.Manifests) > 0 && (m.Config != nil || len(m.Layers) > 0)
	switch m.mediaType {
	case v1.MediaTypeImageIndex, mediaTypeDockerList:
		if m.Config != nil || len(m.Layers) > 0 {
			return nil, errors.New("an index with layers or a config in it")
		}
	case v1.MediaTypeImageManifest, mediaTypeDockerManifest:
		if both {
			return nil, errors.New("a manifest with manifests in it")
		}
	default:
		if m.MediaType != "" {
			return nil, fmt.Errorf("%q is neither a manifest nor an index", m.mediaType)
		}
		switch { // neither the document nor its source says the type
		case both:
			return nil, errors.New("a manifest with manifests in it")
		case m.Config != nil:
			m.mediaType = v1.MediaTypeImageManifest
		case m.Manifests != nil:
			m.mediaType = v1.MediaTypeImageIndex
		default:
			return nil, errors.New("neither a manifest nor an index")
		}
	}
	return m, m.check()
}

func (m *manifest) check() error {
	if len(m.Manifests) > MaxIndex {
		return fmt.Errorf("index of %d entries, at most %d", len(m.Manifests), MaxIndex)
	}
	if len(m.Layers) > MaxLayers {
		return fmt.Errorf("manifest of %d layers, at most %d", len(m.Layers), MaxLayers)
	}
	if !m.isIndex() && m.Config == nil {
		return errors.New("a manifest without a config")
	}
	for i, d := range m.Manifests {
		if err := checkDescriptor(d); err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		if len(d.URLs) > 0 {
			return fmt.Errorf("entry %d: lies elsewhere, at %d urls", i, len(d.URLs))
		}
	}
	for i, d := range m.Layers {
		if err := checkDescriptor(d); err != nil {
			return fmt.Errorf("layer %d: %w", i, err)
		}
	}
	if m.Config != nil {
		if err := checkDescriptor(*m.Config); err != nil {
			return fmt.Errorf("config: %w", err)
		}
		if len(m.Config.URLs) > 0 {
			return fmt.Errorf("config: lies elsewhere, at %d urls", len(m.Config.URLs))
		}
	}
	return nil
}

func checkDescriptor(d v1.Descriptor) error {
	if err := d.Digest.Validate(); err != nil {
		return fmt.Errorf("digest %q: %w", d.Digest, err)
	}
	if d.Size < 0 {
		return fmt.Errorf("size %d", d.Size)
	}
	return nil
}

// check compares bytes with their descriptor.
func check(raw []byte, d v1.Descriptor) error {
	if err := d.Digest.Validate(); err != nil {
		return err
	}
	if int64(len(raw)) != d.Size {
		return fmt.Errorf("has %d bytes, not %d", len(raw), d.Size)
	}
	return checkDigest(raw, d.Digest)
}

func checkDigest(raw []byte, want digest.Digest) error {
	if got := want.Algorithm().FromBytes(raw); got != want {
		return fmt.Errorf("has other bytes than its digest says: %s", got)
	}
	return nil
}
