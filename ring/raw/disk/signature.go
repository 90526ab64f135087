package disk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/dolly-img/dolly-img/ring/printable"
)

// A Signature is one format that a device holds, or held: what was overwritten in part often has several.
type Signature struct {
	// Type is gpt, mbr, ext2, ext3, ext4, xfs, btrfs, vfat, squashfs, iso9660, swap, LVM2, "MD 0.90" (1.0, 1.1, 1.2), LUKS1, LUKS2,
	// HalfWrittenType or UnknownType.
	Type string `json:"type"`
	// Label is that of the file system, or the name of the volume group or of the array. "" is none.
	Label string `json:"label,omitempty"`
}

// These types are no formats.
const (
	// HalfWrittenType is that of a device that dolly-img began to overwrite and did not finish.
	HalfWrittenType = "half-written by dolly-img"
	// UnknownType is that of bytes other than zeros in which no format was found.
	UnknownType = "data of no known format"
)

func (s Signature) String() string {
	if s.Label == "" {
		return s.Type
	}
	return fmt.Sprintf("%s %q", s.Type, s.Label)
}

// span is how many bytes at each end of a device are looked at.
const span = 1 << 20

// ends are the first and the last bytes of a device.
type ends struct {
	head, tail []byte
	size       int64
}

// Signatures returns what the first and the last MiB of r hold, which has so many bytes. It believes magic numbers, and no
// checksums, because it is asked what would be lost. The list is empty if there are only zeros.
func Signatures(r io.ReaderAt, size int64) ([]Signature, error) {
	d := ends{size: size}
	var err error
	if d.head, err = readFull(r, 0, min(size, span)); err != nil {
		return nil, err
	}
	if d.tail, err = readFull(r, max(0, size-span), min(size, span)); err != nil {
		return nil, err
	}
	var found []Signature
	for _, probe := range probes {
		s, ok := probe(&d)
		if ok {
			found = append(found, s)
		}
	}
	if s, ok := d.mbr(); ok && !slices.ContainsFunc(found, ownsBootSector) {
		found = append([]Signature{s}, found...)
	}
	if len(found) == 0 && len(bytes.Trim(d.head, "\x00"))+len(bytes.Trim(d.tail, "\x00")) > 0 {
		found = []Signature{{Type: UnknownType}}
	}
	return found, nil
}

// readFull reads n bytes at off. A device that is shorter than it said is an error.
func readFull(r io.ReaderAt, off, n int64) ([]byte, error) {
	b := make([]byte, n)
	got, err := r.ReadAt(b, off)
	if int64(got) == n {
		return b, nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return nil, err
}

// at returns n bytes at off, and nil if they are not at either end of the device.
func (d *ends) at(off, n int64) []byte {
	before := d.size - int64(len(d.tail))
	switch {
	case off < 0 || off > d.size-n:
		return nil
	case off+n <= int64(len(d.head)):
		return d.head[off : off+n]
	case off >= before:
		return d.tail[off-before : off-before+n]
	}
	return nil
}

// has reports whether magic stands at off.
func (d *ends) has(off int64, magic string) bool {
	return string(d.at(off, int64(len(magic)))) == magic
}

// label returns the text of at most n bytes at off, which ends at the first zero byte and has no blanks around it.
func (d *ends) label(off, n int64) string {
	b, _, _ := bytes.Cut(d.at(off, n), []byte{0})
	return printable.Line(strings.TrimSpace(strings.ToValidUTF8(string(b), "\uFFFD")))
}

// probes are in the order in which a user would name what they find. The master boot record is none of them, because
// its magic is that of every boot sector.
var probes = []func(d *ends) (Signature, bool){
	(*ends).gpt, (*ends).halfWritten, (*ends).luks, (*ends).lvm, (*ends).md1, (*ends).md0, (*ends).ext, (*ends).xfs, (*ends).btrfs,
	(*ends).vfat, (*ends).squashfs, (*ends).iso9660, (*ends).swap,
}

func (d *ends) halfWritten() (Signature, bool) {
	return Signature{Type: HalfWrittenType}, d.has(0, HalfWritten) || d.has(HalfWrittenAt, HalfWritten)
}

// gpt finds the header of a GUID partition table, or its backup, for sectors of 512 and 4096 bytes (UEFI specification, section 5.3).
func (d *ends) gpt() (Signature, bool) {
	const magic = "EFI PART\x00\x00\x01\x00"
	for _, sector := range []int64{512, 4096} {
		if d.has(sector, magic) || d.has(d.size-sector, magic) {
			return Signature{Type: "gpt"}, true
		}
	}
	return Signature{}, false
}

// mbr finds a master boot record: the magic, and four entries that have sane boot flags, one of them used. A boot sector has the magic and no
// such entries.
func (d *ends) mbr() (Signature, bool) {
	const entries, entrySize = 446, 16
	used := false
	for i := int64(0); i < 4; i++ {
		e := d.at(entries+i*entrySize, entrySize)
		if e == nil || e[0]&0x7f != 0 {
			return Signature{}, false
		}
		used = used || e[4] != 0
	}
	return Signature{Type: "mbr"}, used && d.has(510, "\x55\xaa")
}

// ownsBootSector reports whether a format has a boot sector of its own, or a protective one, where a master boot record
// would be.
func ownsBootSector(s Signature) bool { return s.Type == "gpt" || s.Type == "vfat" }

// These are the features of ext2 and ext3, of Documentation/filesystems/ext4 in the kernel. Any other one makes it ext4.
const (
	extJournal    = 0x4  // compatible
	ext3Incompat  = 0x16 // filetype, recover, meta_bg
	ext3ReadOnly  = 0x7  // sparse_super, large_file, btree_dir
	extSuperblock = 1024
)

func (d *ends) ext() (Signature, bool) {
	b := d.at(extSuperblock, 1024)
	if b == nil || binary.LittleEndian.Uint16(b[0x38:]) != 0xef53 {
		return Signature{}, false
	}
	s := Signature{Type: "ext2", Label: d.label(extSuperblock+0x78, 16)}
	compat, incompat, ro := binary.LittleEndian.Uint32(b[0x5c:]), binary.LittleEndian.Uint32(b[0x60:]), binary.LittleEndian.Uint32(b[0x64:])
	switch {
	case incompat&^ext3Incompat != 0 || ro&^ext3ReadOnly != 0:
		s.Type = "ext4"
	case compat&extJournal != 0:
		s.Type = "ext3"
	}
	return s, true
}

// xfs: "XFS Algorithms & Data Structures", Superblocks.
func (d *ends) xfs() (Signature, bool) {
	return Signature{"xfs", d.label(108, 12)}, d.has(0, "XFSB")
}

// btrfs: "On-disk Format" in its documentation.
func (d *ends) btrfs() (Signature, bool) {
	const super = 64 << 10
	return Signature{"btrfs", d.label(super+0x12b, 256)}, d.has(super+0x40, "_BHRfS_M")
}

// vfat finds FAT12, FAT16 and FAT32 (Microsoft, "FAT: General Overview of On-Disk Format").
func (d *ends) vfat() (Signature, bool) {
	b := d.at(0, 512)
	if b == nil || b[510] != 0x55 || b[511] != 0xaa {
		return Signature{}, false
	}
	sector, cluster, tables := binary.LittleEndian.Uint16(b[11:]), b[13], b[16]
	if sector < 512 || sector&(sector-1) != 0 || cluster == 0 || cluster&(cluster-1) != 0 || tables == 0 || tables > 4 || b[21] < 0xf0 {
		return Signature{}, false
	}
	at := int64(43)
	switch kind := string(b[54:62]); {
	case string(b[82:90]) == "FAT32   ":
		at = 71
	case kind != "FAT12   " && kind != "FAT16   " && kind != "FAT     ":
		return Signature{}, false
	}
	s := Signature{"vfat", d.label(at, 11)}
	if s.Label == "NO NAME" {
		s.Label = ""
	}
	return s, true
}

// squashfs: version 4, of which the magic is little-endian.
func (d *ends) squashfs() (Signature, bool) { return Signature{Type: "squashfs"}, d.has(0, "hsqs") }

// iso9660: ECMA-119, Volume Descriptors.
func (d *ends) iso9660() (Signature, bool) {
	const descriptor = 32 << 10
	return Signature{"iso9660", d.label(descriptor+40, 32)}, d.has(descriptor+1, "CD001")
}

// swap finds the magic at the end of the first page, which may have up to 64 KiB (mkswap(8)).
func (d *ends) swap() (Signature, bool) {
	for page := int64(4 << 10); page <= 64<<10; page *= 2 {
		if d.has(page-10, "SWAPSPACE2") || d.has(page-10, "SWAP-SPACE") || d.has(page-10, "S1SUSPEND") {
			return Signature{"swap", d.label(1024+28, 16)}, true
		}
	}
	return Signature{}, false
}

// luks finds LUKS1 and LUKS2 ("LUKS On-Disk Format Specification" and "LUKS2 On-Disk Format Specification").
func (d *ends) luks() (Signature, bool) {
	switch {
	case d.has(0, "LUKS\xba\xbe\x00\x01"):
		return Signature{Type: "LUKS1"}, true
	case d.has(0, "LUKS\xba\xbe\x00\x02"):
		return Signature{"LUKS2", d.label(24, 48)}, true
	}
	return Signature{}, false
}

// lvm finds the label of a physical volume in one of the first four sectors, and the name of its volume group where the
// metadata is near. (lvm2's lib/format_text/layout.h and lib/label/label.h have the structures.)
func (d *ends) lvm() (Signature, bool) {
	for at := int64(0); at < 2048; at += 512 {
		if d.has(at, "LABELONE") && d.has(at+24, "LVM2 001") {
			return Signature{"LVM2", d.volumeGroup(at)}, true
		}
	}
	return Signature{}, false
}

// volumeGroup follows the label at label to the text of the metadata, which begins with the name of the group.
func (d *ends) volumeGroup(label int64) string {
	number := func(at int64) int64 {
		if b := d.at(at, 8); b != nil {
			return int64(binary.LittleEndian.Uint64(b) & (1<<62 - 1))
		}
		return 0
	}
	b := d.at(label+20, 4)
	if b == nil {
		return ""
	}
	// Behind an identity and a size there are two lists of areas: where the data is, and where the metadata is. Each ends with
	// an area at 0, and each area has an offset and a size.
	const entry, most = 16, 32
	at := label + int64(binary.LittleEndian.Uint32(b)) + 40
	for i := 0; i < most && number(at) != 0; i++ {
		at += entry
	}
	area := number(at + entry)
	// The header of the metadata has, behind checksum, magic and version, its own place and a list of texts.
	if area == 0 || !d.has(area+4, " LVM2 x[5A%r0N*>") {
		return ""
	}
	name, _, found := strings.Cut(d.label(area+number(area+40), 128+2), " {")
	if !found {
		return ""
	}
	return name
}

const mdMagic = "\xfc\x4e\x2b\xa9" // 0xa92b4efc, as the kernel's uapi/linux/raid/md_p.h has it

// md1 finds the superblock of versions 1.0 (near the end), 1.1 (at the start) and 1.2 (4 KiB from the start).
func (d *ends) md1() (Signature, bool) {
	sectors := d.size / 512
	for i, at := range []int64{(sectors - 16) &^ 7 * 512, 0, 4096} {
		if d.has(at, mdMagic+"\x01\x00\x00\x00") {
			return Signature{fmt.Sprintf("MD 1.%d", i), d.label(at+32, 32)}, true
		}
	}
	return Signature{}, false
}

// md0 finds the superblock of version 0.90, which is in the last 64 KiB that are whole. It is in the byte order of the machine
// that made it.
func (d *ends) md0() (Signature, bool) {
	at := d.size&^(64<<10-1) - 64<<10
	found := d.has(at, mdMagic+"\x00\x00\x00\x00\x5a\x00\x00\x00") || d.has(at, "\xa9\x2b\x4e\xfc\x00\x00\x00\x00\x00\x00\x00\x5a")
	return Signature{Type: "MD 0.90"}, found
}
