package gpt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// A Patch is bytes that replace those at an offset of a disk. One that is behind the image has whole sectors.
type Patch struct {
	Off   int64
	Bytes []byte
}

// Patches returns what has to be written over an image of imageSize bytes on a disk of targetSize bytes with logical sectors
// of sector bytes, so that its GPT is that of this disk, and notes for the administrator, each a sentence. All other bytes
// stay as they are. That is what "sgdisk -e" does:
//
//   - in the protective MBR, the number of sectors, and the end as cylinder, head and sector
//   - in the primary header, the sector of the backup, the last usable sector, and the CRC
//   - the backup's header in the last sector, and the entries of the partitions before it
//
// The boot code is left alone, and so are a hybrid MBR, and the image's own backup, which nothing looks for in the middle of
// a disk. (Where sectors are free between the entries and the first usable one, sgdisk leaves as many free at the
// end. These leave none.)
//
// Nothing is patched where the disk is as large as the image, or the image has no GPT, or one that is not valid, or no room
// is behind its last partition. A *SectorError says that the disk has other sectors than the table.
func Patches(image io.ReaderAt, imageSize, targetSize, sector int64) (patches []Patch, notes []string, err error) {
	t, err := Read(image, imageSize, sector)
	switch {
	case errors.Is(err, ErrNone):
		return nil, nil, nil
	case errors.Is(err, ErrDamaged):
		return nil, append(notesOfDamage(image, imageSize, sector), fmt.Sprintf("%v: it is left as it is", err)), nil
	case err != nil:
		return nil, nil, err
	case targetSize < imageSize:
		return nil, nil, fmt.Errorf("a disk of %d bytes is smaller than the image of %d", targetSize, imageSize)
	case t.Scheme != GPT:
		return nil, nil, nil
	}
	last := uint64(targetSize/sector - 1)
	imageLast := uint64((imageSize+sector-1)/sector - 1)
	if last == imageLast {
		return nil, t.notesOfBackup(image, imageSize, last), nil
	}
	h := t.primary
	reserved := h.entrySectors(sector)
	// UEFI wants 16 KiB for the entries. Where the image has less before its first usable sector, it has less here, too.
	if least := uint64(entriesByUEFI / sector); h.firstUsable >= 2+least {
		reserved = max(reserved, least)
	}
	if last < h.firstUsable+reserved || last-reserved <= h.used {
		return nil, []string{"no room is behind the last partition for the backup of the GPT: the table is left as it is"}, nil
	}
	if t.Hybrid {
		notes = append(notes, "the MBR names partitions beside the GPT (a hybrid MBR): it is left as it is")
	} else {
		patches = append(patches, t.growProtection(last))
	}
	return append(patches, h.move(sector, last, reserved)...), notes, nil
}

// Notes returns what an administrator should know of the partition table of an image of size bytes, whatever disk it comes
// to: that it is damaged, or its backup.
func Notes(image io.ReaderAt, size int64) ([]string, error) {
	sector := sectors[0]
	_, err := Read(image, size, sector)
	if other := new(SectorError); errors.As(err, &other) {
		sector = other.Table
	}
	_, notes, err := Patches(image, size, size, sector)
	return notes, err
}

// growProtection returns the entry of the protective MBR for a disk that ends with this sector.
func (t *Table) growProtection(last uint64) Patch {
	entries, _ := parseMBR(&t.mbr)
	i := 0
	for entries[i].kind != typeGPT || entries[i].first != 1 {
		i++
	}
	off := mbrEntries + i*mbrEntry
	e := bytes.Clone(t.mbr[off:][:mbrEntry])
	copy(e[5:], chs(last))
	binary.LittleEndian.PutUint32(e[12:], uint32(min(last, math.MaxUint32)))
	return Patch{int64(off), e}
}

// chs encodes a sector as cylinder, head and sector of a disk with 255 heads and 63 sectors, or as UEFI's
// value (table 5.4, EndingCHS) for those that are too far.
func chs(lba uint64) []byte {
	const heads, perTrack, cylinders = 255, 63, 1024
	if lba >= heads*perTrack*cylinders {
		return []byte{0xFF, 0xFF, 0xFF}
	}
	c, h, s := lba/(heads*perTrack), lba/perTrack%heads, lba%perTrack+1
	return []byte{byte(h), byte(s) | byte(c>>8)<<6, byte(c)}
}

// move returns what changes in the primary header when the backup moves to the sector last, with so many sectors for the
// entries before it, and the backup.
func (h *header) move(sector int64, last, reserved uint64) []Patch {
	le := binary.LittleEndian
	primary := bytes.Clone(h.raw)
	le.PutUint64(primary[32:], last)
	le.PutUint64(primary[48:], last-reserved-1)
	sumHeader(primary)
	backup := bytes.Clone(primary)
	le.PutUint64(backup[24:], last)
	le.PutUint64(backup[32:], 1)
	le.PutUint64(backup[72:], last-reserved)
	sumHeader(backup)
	end := make([]byte, int64(reserved+1)*sector)
	copy(end, h.entries)
	copy(end[int64(reserved)*sector:], backup)
	return []Patch{
		{sector + 16, primary[16:20]}, {sector + 32, primary[32:40]}, {sector + 48, primary[48:56]},
		{int64(last-reserved) * sector, end},
	}
}

// notesOfBackup looks at the backup of a valid table on a disk that ends with the sector last.
func (t *Table) notesOfBackup(image io.ReaderAt, size int64, last uint64) []string {
	_, _, err := readHeader(image, size, t.Sector, last)
	switch {
	case t.primary.alternate != last:
		return []string{"the backup of the GPT is not at the end of the disk, as in the image: sgdisk -e moves it"}
	case err != nil:
		return []string{fmt.Sprintf("the backup of the GPT is not valid, as in the image (%v)", err)}
	}
	return nil
}

// notesOfDamage says whether the backup of a damaged table is valid.
func notesOfDamage(image io.ReaderAt, size, sector int64) []string {
	last := size/sector - 1
	if last < 2 {
		return nil
	}
	if _, _, err := readHeader(image, size, sector, uint64(last)); err != nil {
		return nil
	}
	return []string{"only the backup of the GPT is valid, at the end of the image: on a larger disk nothing looks for it there"}
}
