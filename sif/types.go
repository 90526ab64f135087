package sif

import "fmt"

// A DataType is the kind of an object in a SIF.
type DataType uint32

// The kinds of objects.
const (
	DefinitionFile DataType = 0x4001 + iota
	Environment
	Labels
	Partition
	Signature
	GenericJSON
	Generic
	CryptoMessage
	SBOM
	OCIRootIndex
	OCIBlob
)

// String returns a name for people.
func (t DataType) String() string {
	return name(uint32(t-DefinitionFile), "type", uint32(t), "definition file", "environment", "labels", "partition", "signature",
		"JSON", "generic", "encrypted message", "SBOM", "OCI root index", "OCI blob")
}

// An FSType is the kind of file system in a partition; 0 is none.
type FSType uint32

// The kinds of file systems.
const (
	FSSquash FSType = 1 + iota
	FSExt3
	FSArchive
	FSRaw
	FSEncryptedSquash
)

// String returns a name for people.
func (t FSType) String() string {
	return name(uint32(t-FSSquash), "file system", uint32(t), "squashfs", "ext3", "archive", "raw", "encrypted squashfs")
}

// A PartType is what a partition is for; 0 is nothing.
type PartType uint32

// The uses of partitions.
const (
	PartSystem  PartType = 1 + iota
	PartPrimary          // holds the root file system
	PartData
	PartOverlay
)

// String returns a name for people.
func (t PartType) String() string {
	return name(uint32(t-PartSystem), "partition", uint32(t), "system", "primary system", "data", "overlay")
}

// name is names[i], or the number n of what it is if there is none.
func name(i uint32, what string, n uint32, names ...string) string {
	if i < uint32(len(names)) {
		return names[i]
	}
	return fmt.Sprintf("%s %#x", what, n)
}
