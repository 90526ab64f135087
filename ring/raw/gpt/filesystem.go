package gpt

import (
	"encoding/binary"
	"errors"
	"io"
)

// A content is what a partition or an image begins with.
type content struct {
	name string
	// sector is that of the largest logical sector, in bytes, that its driver in Linux takes. 0 is any.
	sector int64
}

const probed = 68 << 10 // bytes; the superblock of btrfs is at 64 KiB

// probe looks at the beginning of a part of an image.
func probe(image io.ReaderAt, off, size int64) (c content, err error) {
	n := min(probed, size)
	b := make([]byte, probed)
	if got, err := image.ReadAt(b[:n], off); int64(got) < n && !errors.Is(err, io.EOF) {
		return c, err
	}
	for _, f := range filesystems {
		if f.magic == string(b[f.at:][:len(f.magic)]) && (f.sector == nil || f.sector(b) > 0) {
			c.name = f.name
			if f.sector != nil && f.sector(b) < 4096 {
				c.sector = f.sector(b)
			}
			return c, nil
		}
	}
	return c, nil
}

// filesystems are those that are told from other bytes here. Those with a function depend on the sectors of the
// disk; it returns the smallest unit in which the driver reads, and 0 where the rest of the superblock is none. The others
// read in pages, or in units that their driver makes larger where the disk's are. Of what is inside LUKS, LVM2 and MD
// nothing is known here.
var filesystems = []struct {
	name   string
	at     int
	magic  string
	sector func(b []byte) int64
}{
	{"xfs", 0, "XFSB", func(b []byte) int64 { return power(int64(binary.BigEndian.Uint16(b[102:])), 512, 32<<10) }},
	{"ext", 1024 + 56, "\x53\xEF", func(b []byte) int64 { return shifted(binary.LittleEndian.Uint32(b[1024+24:]), 10, 16) }},
	{"ntfs", 3, "NTFS    ", fat},
	{"exfat", 3, "EXFAT   ", func(b []byte) int64 { return shifted(uint32(b[108]), 0, 12) }},
	{"vfat", 54, "FAT", fat},
	{"vfat", 82, "FAT32   ", fat},
	{"iso9660", 32769, "CD001", func([]byte) int64 { return 2048 }},
	{"btrfs", 64<<10 + 64, "_BHRfS_M", nil},
	{"squashfs", 0, "hsqs", nil},
	{"f2fs", 1024, "\x10\x20\xF5\xF2", nil},
	{"erofs", 1024, "\xE2\xE1\xF5\xE0", nil},
	{"swap", 4096 - 10, "SWAPSPACE2", nil},
	{"swap", 64<<10 - 10, "SWAPSPACE2", nil},
	{"LUKS", 0, "LUKS\xBA\xBE", nil},
	{"LVM2", 512, "LABELONE", nil},
	{"MD", 0, "\xFC\x4E\x2B\xA9", nil},
	{"MD", 4096, "\xFC\x4E\x2B\xA9", nil},
}

// fat returns the bytes of a sector that a boot sector of FAT or NTFS names.
func fat(b []byte) int64 {
	if b[510] != 0x55 || b[511] != 0xAA {
		return 0
	}
	return power(int64(binary.LittleEndian.Uint16(b[11:])), 512, 4096)
}

// power returns n if it is a power of two from least to most, and 0 if not.
func power(n, least, most int64) int64 {
	if n < least || n > most || n&(n-1) != 0 {
		return 0
	}
	return n
}

// shifted returns the power of two that a field says, as the bits that it has more than least, up to most, and 0 if it is no
// such field.
func shifted(bits, least, most uint32) int64 {
	if bits > most-least {
		return 0
	}
	return power(1<<(least+bits), 512, 1<<most)
}
