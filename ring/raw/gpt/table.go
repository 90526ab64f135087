// Package gpt reads the partition tables of disks and of images of disks, says which bytes of a GPT change when an image
// comes to a larger disk, and what in an image depends on the size of a logical sector. It only computes: images are
// io.ReaderAt, and patches are bytes that somebody else writes.
//
// GPT and the protective MBR are from the UEFI specification, version 2.10, chapter 5 ("GUID Partition Table (GPT) Disk
// Layout"). The chain of extended partitions of an MBR is described nowhere with authority; what is here agrees with
// sfdisk and with the Linux kernel.
package gpt

import (
	"errors"
	"fmt"
	"io"
)

// A Scheme is a kind of partition table.
type Scheme string

// The schemes that are known.
const (
	GPT Scheme = "gpt"
	MBR Scheme = "mbr"
)

// A Partition is a part of a disk that its table names.
type Partition struct {
	Number      int    // as the kernel counts: from 1 on, logical partitions of an MBR from 5 on
	Start, Size int64  // bytes
	Name        string // GPT only
	Extended    bool   // MBR only: it holds logical partitions, which are listed, too, and nothing else
}

// A Table is the partition table of a disk.
type Table struct {
	Scheme     Scheme
	Sector     int64       // bytes of the logical sector that the table counts in
	Hybrid     bool        // GPT only: the MBR before it names partitions, too
	Partitions []Partition // in the order of their numbers
	primary    header      // GPT only
	mbr        [mbrSize]byte
}

var (
	// ErrNone is the error of an image without a partition table.
	ErrNone = errors.New("no partition table")
	// ErrDamaged is the error of an image with a partition table that breaks a rule of its format.
	ErrDamaged = errors.New("damaged partition table")
)

// A SectorError is the error of an image whose partition table counts in other sectors than those that were asked for.
type SectorError struct {
	Table, Disk int64 // bytes
}

func (e *SectorError) Error() string {
	return fmt.Sprintf("the partition table is made for sectors of %d bytes, the disk has sectors of %d", e.Table, e.Disk)
}

// sectors are the sizes of logical sectors that disks have, in bytes.
var sectors = []int64{512, 4096}

func checkSector(sector int64) error {
	if sector < 512 || sector > 64<<10 || sector&(sector-1) != 0 {
		return fmt.Errorf("%d bytes is no size of a sector", sector)
	}
	return nil
}

// Read returns the partition table of an image of size bytes, as a disk with logical sectors of sector bytes has it. An MBR
// does not say in which sectors it counts: it is read as if it were made for these.
//
// An image without a table is ErrNone. One whose GPT has other sectors is a *SectorError. One with a table that is not
// valid is ErrDamaged with the reason. All other errors are those of reading.
func Read(image io.ReaderAt, size, sector int64) (*Table, error) {
	if err := checkSector(sector); err != nil {
		return nil, err
	}
	t := &Table{Sector: sector}
	first, err := readAt(image, size, 0, mbrSize)
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, ErrNone
	case err != nil:
		return nil, err
	}
	copy(t.mbr[:], first)
	entries, isMBR := parseMBR(&t.mbr)
	switch others, protective := protection(entries); {
	case isMBR && protective:
		t.Scheme, t.Hybrid = GPT, others
		if err := t.readGPT(image, size); err != nil {
			return nil, err
		}
		return t, nil
	case isMBR:
		t.Scheme = MBR
		if t.Partitions, err = partitionsOfMBR(image, size, sector, entries); err != nil {
			return nil, err
		}
		return t, nil
	}
	// Without a protective MBR no system takes a GPT for one.
	for _, s := range sectors {
		if found, err := hasSignature(image, size, s); err != nil || found {
			return nil, errors.Join(err, damaged("the header of a GPT is there, and no protective MBR before it"))
		}
	}
	return nil, ErrNone
}

func (t *Table) readGPT(image io.ReaderAt, size int64) error {
	found, err := hasSignature(image, size, t.Sector)
	if err != nil {
		return err
	}
	if !found {
		for _, s := range sectors {
			if other, err := hasSignature(image, size, s); err != nil || other && s != t.Sector {
				return errors.Join(err, &SectorError{Table: s, Disk: t.Sector})
			}
		}
		return damaged("a protective MBR is there, and no header of a GPT behind it")
	}
	t.primary, t.Partitions, err = readHeader(image, size, t.Sector, 1)
	return err
}

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(format, args...))
}

// readAt returns n bytes of an image. Bytes behind its end are an io.ErrUnexpectedEOF.
func readAt(image io.ReaderAt, size, off, n int64) ([]byte, error) {
	if off < 0 || n < 0 || off > size-n {
		return nil, io.ErrUnexpectedEOF
	}
	b := make([]byte, n)
	if got, err := image.ReadAt(b, off); int64(got) < n {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("bytes %d to %d: %w", off, off+n, err)
	}
	return b, nil
}
