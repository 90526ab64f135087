package gpt

import (
	"errors"
	"fmt"
	"io"
	"slices"
)

// A Need is something in an image that works with some sizes of a logical sector only.
type Need struct {
	What     string // as in "a GPT for sectors of 512 bytes"
	Min, Max int64  // bytes of the sectors with which it works
}

// Fits reports whether it works on a disk with such sectors.
func (n Need) Fits(sector int64) bool { return n.Min <= sector && sector <= n.Max }

// maxProbed is how many partitions are looked into: the Linux kernel shows no more of a disk.
const maxProbed = 256

// Inside returns what in an image of size bytes depends on the size of the disk's logical sectors: the partition table,
// which counts in them, and file systems, on the whole image or in a partition, whose drivers in Linux read in smaller
// units than some disks can: xfs with its sectors, ext2 to ext4 with blocks of 1 KiB and 2 KiB, vfat, exfat and NTFS with their
// sectors, and ISO 9660. Swap, btrfs, squashfs and others read in pages or adapt themselves. dm-crypt splits its sectors
// below the disk's, so LUKS itself does not depend on them; what is inside of it, of LVM2 or of MD is not looked at.
//
// sector is that of the disk which the image is or was read from, in bytes, and 0 where that is not known. Only for an MBR it
// matters, which does not say in which sectors it counts: without it a file system at the beginning of a
// partition tells, and where there is none, sectors of 512 bytes are assumed.
func Inside(image io.ReaderAt, size, sector int64) (needs []Need, err error) {
	tables, err := tables(image, size, sector)
	if err != nil {
		return nil, err
	}
	for _, t := range tables {
		if len(tables) == 1 { // an image with one for each size of a sector can come to both
			needs = append(needs, Need{fmt.Sprintf("%s for sectors of %d bytes", t.Scheme.article(), t.Sector), t.Sector, t.Sector})
		}
		for i, p := range t.Partitions {
			if p.Extended || i >= maxProbed || p.Start >= size {
				continue
			}
			c, err := probe(image, p.Start, min(p.Size, size-p.Start))
			if err != nil {
				return nil, err
			}
			needs = c.need(needs, fmt.Sprintf(" in partition %d", p.Number))
		}
	}
	if len(tables) == 0 {
		c, err := probe(image, 0, size)
		return c.need(nil, ""), err
	}
	return needs, nil
}

// Partitions returns the partitions of an image of size bytes that begin in it and hold something themselves, none where there is no
// valid table. Sector is as for Inside. Of an image with a table for each size of a sector they are those of the first.
func Partitions(image io.ReaderAt, size, sector int64) ([]Partition, error) {
	tables, err := tables(image, size, sector)
	if err != nil || len(tables) == 0 {
		return nil, err
	}
	list := slices.DeleteFunc(tables[0].Partitions, func(p Partition) bool { return p.Extended || p.Start >= size })
	return list[:min(len(list), maxProbed)], nil
}

func (s Scheme) article() string {
	if s == MBR {
		return "an MBR"
	}
	return "a GPT"
}

func (c content) need(needs []Need, where string) []Need {
	if c.sector == 0 {
		return needs
	}
	n := Need{fmt.Sprintf("%s in units of %d bytes%s", c.name, c.sector, where), 1, c.sector}
	if slices.Contains(needs, n) { // two tables name the same partition
		return needs
	}
	return append(needs, n)
}

// tables returns the valid tables of an image, of which a GPT may be there for each size of a sector.
func tables(image io.ReaderAt, size, sector int64) (found []*Table, err error) {
	ask := sectors
	if sector != 0 && !slices.Contains(ask, sector) {
		ask = append(slices.Clone(ask), sector)
	}
	for _, s := range ask {
		t, err := Read(image, size, s)
		var other *SectorError
		switch {
		case errors.Is(err, ErrNone), errors.Is(err, ErrDamaged), errors.As(err, &other):
			continue
		case err != nil:
			return nil, err
		case t.Scheme == MBR && sector != 0 && s != sector:
			continue
		}
		found = append(found, t)
	}
	if len(found) > 1 && found[0].Scheme == MBR {
		return likelier(image, size, found)
	}
	return found, nil
}

// likelier returns the first of the readings of one MBR by which a partition begins with something known.
func likelier(image io.ReaderAt, size int64, readings []*Table) ([]*Table, error) {
	for _, t := range readings {
		for _, p := range t.Partitions {
			if p.Extended || p.Start >= size {
				continue
			}
			c, err := probe(image, p.Start, min(p.Size, size-p.Start))
			if err != nil {
				return nil, err
			}
			if c.name != "" {
				return []*Table{t}, nil
			}
		}
	}
	return readings[:1], nil
}

// A Kind is what an image is an image of.
type Kind string

// The kinds of images.
const (
	Unknown    Kind = ""
	Disk       Kind = "a disk with a partition table"
	FileSystem Kind = "what a partition holds"
)

// KindOf returns what an image of size bytes is: a disk, where it has a partition table, even a damaged one; what a partition
// holds, where it begins with a file system, swap, LUKS, LVM2 or MD; and else nothing that is known. An image that begins
// like both is a disk if it is an ISO 9660 file system, which may have a partition table beside, and else unknown.
func KindOf(image io.ReaderAt, size int64) (Kind, error) {
	_, err := Read(image, size, sectors[0])
	var other *SectorError
	disk := err == nil || errors.Is(err, ErrDamaged) || errors.As(err, &other)
	if !disk && !errors.Is(err, ErrNone) {
		return Unknown, err
	}
	c, err := probe(image, 0, size)
	switch {
	case err != nil:
		return Unknown, err
	case disk && (c.name == "" || c.name == "iso9660"):
		return Disk, nil
	case !disk && c.name != "":
		return FileSystem, nil
	}
	return Unknown, nil
}
