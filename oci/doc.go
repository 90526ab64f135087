// Package oci resolves container images where they lie and reads them:
//
//	docker://NAME            a registry, with its mirrors, short names and credentials
//	oras://NAME              the same; what skopeo, oras and apptainer keep a SIF as
//	oci:DIR[:REF]            an OCI image layout
//	oci-archive:FILE[:REF]   one in a tar, also compressed, read in place
//	docker-archive:FILE[:REF] what "docker save" writes, read in place
//
// Open finds the one manifest (of the platform asked for) or the whole index, once;
// from then on everything is named by digest. The manifests are kept byte for byte
// as they came, and every byte is compared with its digest while it is read.
//
// Of a registry the configuration of the containers tools is honoured:
// registries.conf, auth.json and certs.d. Nothing here reads policy.json but
// CheckPolicy, which says whether it lets an image in that nobody checked.
package oci

// Limits of what an image may be; none of them is met by an honest one.
const (
	MaxManifest = 4 << 20  // bytes of a manifest or index, as registries have it
	MaxIndex    = 1000     // entries of an index
	MaxLayers   = 10_000   // of a manifest
	maxDepth    = 4        // of an index in an index in …
	maxFiles    = 100_000  // entries of an archive
	maxNames    = 16 << 20 // bytes of their names

	maxManifests = 64 << 20 // bytes of all manifests below one index: they are kept in memory
)
