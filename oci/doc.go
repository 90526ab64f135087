// Package oci finds container images where they lie, and reads them. It knows images by transport and name; package
// cmd/dolly-img/internal/image understands the argument IMAGE of a command, and calls this one.
//
//	docker://NAME            a registry, with its mirrors, short names and credentials
//	oras://NAME              the same; skopeo, oras and apptainer keep a SIF in a registry so
//	oci:DIR[:REF]            an OCI image layout
//	oci-archive:FILE[:REF]   an OCI image layout in a tar, also compressed, read in place
//	docker-archive:FILE[:REF] what "docker save" writes, read in place
//
// Open finds one manifest (for the platform that was asked for) or the whole index,
// once. From then on everything is named by digest. The manifests are kept byte for byte
// as they came, and every byte is compared with its digest while it is read.
//
// For registries the package reads the configuration of the containers tools:
// registries.conf, auth.json and certs.d. Only CheckPolicy reads policy.json: it
// says whether the policy lets an image in whose signature nobody checks.
package oci

// These limits bound what an image may be. No honest image comes near them.
const (
	MaxManifest = 4 << 20  // bytes of a manifest or index, as registries have it
	MaxIndex    = 1000     // entries of an index
	MaxLayers   = 10_000   // of a manifest
	maxDepth    = 4        // of an index in an index in …
	maxFiles    = 100_000  // entries of an archive
	maxNames    = 16 << 20 // bytes of their names

	maxManifests = 64 << 20 // bytes of all manifests below one index: they are kept in memory
)
