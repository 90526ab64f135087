// Package sif reads, checks and describes container images in the Singularity Image
// Format, and is the source from which a ring sends one.
//
// Inspect trusts nothing in a file: each count, offset and size is checked against the
// file's real length before anything is allocated or read. Open adds what a push
// needs: the digest of the file and the artifact that registries know it by.
//
// # Format
//
// The format is that of github.com/sylabs/sif/v2, version 01, which Apptainer and
// SingularityCE write. Numbers are little-endian, offsets from the start of the file:
//
//	  0  32  launch script, ended by NUL
//	 32  10  "SIF_MAGIC" NUL
//	 42   3  version, "01" NUL
//	 45   3  architecture, two digits and NUL
//	 48  16  UUID
//	 64   8  created, seconds of Unix time
//	 72   8  modified
//	 80   8  descriptors that are free
//	 88   8  descriptors in the table
//	 96   8  offset of the table
//	104   8  size of the table
//	112   8  offset of the data
//	120   8  size of the data
//
// and each of the table's descriptors:
//
//	  0   4  data type
//	  4   1  used: 0 or 1
//	  5   4  ID, from 1
//	  9   4  group in the low 28 bits
//	 13   4  linked ID, or with the high 4 bits set a linked group
//	 17   8  offset of its data
//	 25   8  size of its data
//	 33   8  size with the padding before it
//	 41   8  created
//	 49   8  modified
//	 57  16  user and group, no longer used
//	 73 128  name, ended by NUL if shorter
//	201 384  depends on the type; a partition has the types of its file system (4)
//	         and of itself (4) and its architecture (3)
package sif

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

const (
	headerSize     = 128
	descriptorSize = 585
	magicOffset    = 32
	magic          = "SIF_MAGIC\x00"
	version        = "01\x00"
	groupMask      = 0xf0000000

	// maxDescriptors bounds the table; the usual capacity is 48.
	maxDescriptors = 1 << 14
)

// An Image is what the header and the descriptors of a SIF say.
type Image struct {
	Launch               string // script line that runs it
	Version              string
	Arch                 string // as the Go runtime names it, or "unknown"
	ID                   string // UUID
	Created, Modified    time.Time
	Capacity             int          // descriptors in the table
	Descriptors          []Descriptor // those in use
	DataOffset, DataSize int64        // bytes
}

// A Descriptor is what a SIF says of one object in it.
type Descriptor struct {
	Number            int // place in the table, from 1
	Type              DataType
	ID                uint32
	Group             uint32 // 0: none
	Link              uint32 // 0: none
	LinkIsGroup       bool
	Offset, Size      int64 // bytes
	Created, Modified time.Time
	Name              string   // not checked: escape it before printing
	FS                FSType   // of a partition
	Part              PartType // of a partition
	Arch              string   // of a partition, as Image.Arch
}

// A FormatError says why a file is not a SIF that can be trusted.
type FormatError struct {
	Descriptor int // place in the table, from 1; 0: the header
	Reason     string
}

func (e *FormatError) Error() string {
	if e.Descriptor == 0 {
		return "bad SIF: header: " + e.Reason
	}
	return fmt.Sprintf("bad SIF: descriptor %d: %s", e.Descriptor, e.Reason)
}

// Kind returns the kind of the error.
func (e *FormatError) Kind() (errkind.Kind, []string) { return "sif-malformed", nil }

func bad(descriptor int, format string, args ...any) error {
	return &FormatError{Descriptor: descriptor, Reason: fmt.Sprintf(format, args...)}
}

// Is reports whether a file that starts with head, of at least 42 bytes, says that it
// is a SIF.
func Is(head []byte) bool {
	return len(head) >= magicOffset+len(magic) && string(head[magicOffset:magicOffset+len(magic)]) == magic
}

// Inspect reads the header and the descriptors of a SIF that is size bytes long, and
// nothing else of it. Data types, file systems and architectures that it does not know
// are accepted. An error is a *FormatError or one of reading r.
func Inspect(r io.ReaderAt, size int64) (*Image, error) {
	if size < headerSize {
		return nil, bad(0, "the file has %d bytes, less than a header", size)
	}
	h := make([]byte, headerSize)
	if err := readAt(r, h, 0); err != nil {
		return nil, err
	}
	if !Is(h) {
		return nil, bad(0, "no SIF magic")
	}
	if string(h[42:45]) != version {
		return nil, bad(0, "version %q, want %q", h[42:45], version)
	}
	arch, ok := parseArch(h[45:48])
	if !ok {
		return nil, bad(0, "architecture %q", h[45:48])
	}
	img := &Image{
		Launch:     text(h[:magicOffset]),
		Version:    text(h[42:45]),
		Arch:       arch,
		ID:         uuid(h[48:64]),
		Created:    seconds(h[64:]),
		Modified:   seconds(h[72:]),
		DataOffset: int64At(h[112:]),
		DataSize:   int64At(h[120:]),
	}
	free, total, tableOff, tableSize := int64At(h[80:]), int64At(h[88:]), int64At(h[96:]), int64At(h[104:])
	switch {
	case total < 1 || total > maxDescriptors:
		return nil, bad(0, "%d descriptors, want 1 to %d", total, maxDescriptors)
	case free < 0 || free > total:
		return nil, bad(0, "%d of %d descriptors free", free, total)
	case tableSize != total*descriptorSize:
		return nil, bad(0, "%d descriptors in %d bytes, want %d", total, tableSize, total*descriptorSize)
	case tableOff < headerSize:
		return nil, bad(0, "descriptors at %d overlap the header", tableOff)
	case !within(tableOff, tableSize, size):
		return nil, bad(0, "descriptors at %d, %d bytes, are beyond the end of the file at %d", tableOff, tableSize, size)
	case img.DataOffset < tableOff+tableSize:
		return nil, bad(0, "data at %d overlaps the descriptors, which end at %d", img.DataOffset, tableOff+tableSize)
	case !within(img.DataOffset, img.DataSize, size):
		return nil, bad(0, "data at %d, %d bytes, is beyond the end of the file at %d", img.DataOffset, img.DataSize, size)
	}
	table := make([]byte, tableSize)
	if err := readAt(r, table, tableOff); err != nil {
		return nil, err
	}
	img.Capacity = int(total)
	if err := img.readTable(table, size); err != nil {
		return nil, err
	}
	return img, nil
}

// readTable decodes the descriptors in use of a file of size bytes.
func (img *Image) readTable(table []byte, size int64) error {
	ids := map[uint32]int{}
	primary := 0
	for i := range img.Capacity {
		raw := table[i*descriptorSize : (i+1)*descriptorSize]
		n := i + 1
		switch raw[4] {
		case 0:
			continue
		case 1:
		default:
			return bad(n, "neither used nor free: %d", raw[4])
		}
		d, err := readDescriptor(n, raw)
		if err != nil {
			return err
		}
		switch other := ids[d.ID]; {
		case d.ID == 0:
			return bad(n, "ID 0")
		case other != 0:
			return bad(n, "ID %d is that of descriptor %d", d.ID, other)
		case d.Size < 0:
			return bad(n, "size %d is negative", d.Size)
		case d.Offset < img.DataOffset:
			return bad(n, "data at %d lies before the data of the file at %d", d.Offset, img.DataOffset)
		case !within(d.Offset, d.Size, size):
			return bad(n, "data at %d, %d bytes, is beyond the end of the file at %d", d.Offset, d.Size, size)
		case d.Part == PartPrimary && primary != 0:
			return bad(n, "second primary system partition after descriptor %d", primary)
		}
		ids[d.ID] = n
		if d.Part == PartPrimary {
			primary = n
		}
		img.Descriptors = append(img.Descriptors, d)
	}
	return checkOverlap(img.Descriptors)
}

// checkOverlap refuses two objects that share a byte.
func checkOverlap(all []Descriptor) error {
	ds := slices.DeleteFunc(slices.Clone(all), func(d Descriptor) bool { return d.Size == 0 })
	slices.SortStableFunc(ds, func(a, b Descriptor) int {
		if a.Offset < b.Offset {
			return -1
		}
		if a.Offset > b.Offset {
			return 1
		}
		return 0
	})
	for i := 1; i < len(ds); i++ {
		if a, b := ds[i-1], ds[i]; a.Offset+a.Size > b.Offset {
			return bad(max(a.Number, b.Number), "data overlaps that of descriptor %d", min(a.Number, b.Number))
		}
	}
	return nil
}

// readDescriptor decodes one descriptor in use.
func readDescriptor(n int, raw []byte) (Descriptor, error) {
	link := binary.LittleEndian.Uint32(raw[13:])
	d := Descriptor{
		Number:      n,
		Type:        DataType(binary.LittleEndian.Uint32(raw)),
		ID:          binary.LittleEndian.Uint32(raw[5:]),
		Group:       binary.LittleEndian.Uint32(raw[9:]) &^ groupMask,
		Link:        link &^ groupMask,
		LinkIsGroup: link&groupMask == groupMask,
		Offset:      int64At(raw[17:]),
		Size:        int64At(raw[25:]),
		Created:     seconds(raw[41:]),
		Modified:    seconds(raw[49:]),
		Name:        text(raw[73:201]),
	}
	if d.Type != Partition {
		return d, nil
	}
	d.FS = FSType(binary.LittleEndian.Uint32(raw[201:]))
	d.Part = PartType(binary.LittleEndian.Uint32(raw[205:]))
	var ok bool
	if d.Arch, ok = parseArch(raw[209:212]); !ok {
		return d, bad(n, "architecture %q", raw[209:212])
	}
	if d.Part == 0 || d.FS == 0 {
		return d, bad(n, "partition without a type")
	}
	return d, nil
}

// PrimaryPartition returns the partition with the root file system, or nil.
func (img *Image) PrimaryPartition() *Descriptor {
	return img.find(func(d Descriptor) bool { return d.Part == PartPrimary })
}

// ErrNotRunnable is the error for a SIF that holds only data.
var ErrNotRunnable = errors.New("nothing to run in this SIF: neither a primary system partition nor an OCI root index")

// CheckRunnable returns ErrNotRunnable unless a container runtime can start the image:
// it has a primary system partition, or, as SingularityCE 4 makes them, an OCI root index.
func (img *Image) CheckRunnable() error {
	if img.PrimaryPartition() == nil && img.find(func(d Descriptor) bool { return d.Type == OCIRootIndex }) == nil {
		return ErrNotRunnable
	}
	return nil
}

func (img *Image) find(is func(Descriptor) bool) *Descriptor {
	if i := slices.IndexFunc(img.Descriptors, is); i >= 0 {
		return &img.Descriptors[i]
	}
	return nil
}

// within reports whether n bytes at off lie in a file of size bytes.
func within(off, n, size int64) bool {
	return off >= 0 && n >= 0 && off <= size && n <= size-off
}

func readAt(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return bad(0, "the file ends at %d", off+int64(n))
	}
	return err
}

func int64At(b []byte) int64 { return int64(binary.LittleEndian.Uint64(b)) }

func seconds(b []byte) time.Time { return time.Unix(int64At(b), 0).UTC() }

// text returns the bytes up to the first NUL.
func text(b []byte) string {
	before, _, _ := bytes.Cut(b, []byte{0})
	return string(before)
}

func uuid(b []byte) string {
	s := hex.EncodeToString(b)
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}

// parseArch reads two digits and NUL. Numbers that have no name here are "unknown".
func parseArch(b []byte) (string, bool) {
	if b[0] < '0' || b[0] > '9' || b[1] < '0' || b[1] > '9' || b[2] != 0 {
		return "", false
	}
	n := int(b[0]-'0')*10 + int(b[1]-'0')
	if n < len(archs) {
		return archs[n], true
	}
	return archs[0], true
}

var archs = [...]string{"unknown", "386", "amd64", "arm", "arm64", "ppc64", "ppc64le", "mips", "mipsle", "mips64", "mips64le",
	"s390x", "riscv64", "loong64"}
