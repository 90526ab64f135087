package gpt

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math"
	"slices"
	"unicode/utf16"
)

const (
	signature     = "EFI PART"
	revision      = 1 << 16
	minHeader     = 92
	minEntry      = 128
	maxEntries    = 4 << 20 // bytes; a table for 128 partitions takes 16 KiB
	entriesByUEFI = 16 << 10
)

// A header is that of a GPT, the primary one or the backup.
type header struct {
	raw                                                  []byte // the whole sector
	entries                                              []byte // of the partitions, as they are on the disk
	alternate, firstUsable, lastUsable, entriesLBA, used uint64 // used: the last sector of a partition, or 0
}

func hasSignature(image io.ReaderAt, size, sector int64) (bool, error) {
	b, err := readAt(image, size, sector, int64(len(signature)))
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return false, nil
	}
	return string(b) == signature, err
}

// entrySectors is the number of sectors that the entries of the partitions take.
func (h *header) entrySectors(sector int64) uint64 {
	return uint64((int64(len(h.entries)) + sector - 1) / sector)
}

// sumHeader writes the CRC of a header into it (UEFI, table 5.5, HeaderCRC32).
func sumHeader(raw []byte) {
	size := binary.LittleEndian.Uint32(raw[12:])
	binary.LittleEndian.PutUint32(raw[16:], 0)
	binary.LittleEndian.PutUint32(raw[16:], crc32.ChecksumIEEE(raw[:size]))
}

// readHeader reads and checks the GPT whose header is at a sector: 1, or the last one of the disk for the backup.
func readHeader(image io.ReaderAt, size, sector int64, at uint64) (h header, list []Partition, err error) {
	h.raw, err = readAt(image, size, int64(at)*sector, sector)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return h, nil, damaged("it ends before the header of the GPT does")
	} else if err != nil {
		return h, nil, err
	}
	if err := h.check(at, uint64(math.MaxInt64/sector)); err != nil {
		return h, nil, err
	}
	le := binary.LittleEndian
	count, each := le.Uint32(h.raw[80:]), le.Uint32(h.raw[84:])
	h.entries, err = readAt(image, size, int64(h.entriesLBA)*sector, int64(count)*int64(each))
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return h, nil, damaged("it ends before the entries of the GPT do")
	} else if err != nil {
		return h, nil, err
	}
	if crc32.ChecksumIEEE(h.entries) != le.Uint32(h.raw[88:]) {
		return h, nil, damaged("the CRC of the entries is wrong")
	}
	end := h.entriesLBA + h.entrySectors(sector)
	if at == 1 && (h.entriesLBA < 2 || end > h.firstUsable) || at != 1 && (h.entriesLBA <= h.lastUsable || end > at) {
		return h, nil, damaged("the entries of the partitions lie at sector %d, where they cannot be", h.entriesLBA)
	}
	list, err = h.partitions(int(each), sector)
	return h, list, err
}

// check decodes the fields of a header and checks all that they say without the entries. limit is above all sectors.
func (h *header) check(at, limit uint64) error {
	le := binary.LittleEndian
	size := le.Uint32(h.raw[12:])
	switch {
	case string(h.raw[:8]) != signature:
		return damaged("sector %d holds no header of a GPT", at)
	case le.Uint32(h.raw[8:]) != revision:
		return damaged("revision %#x of the GPT is not known", le.Uint32(h.raw[8:]))
	case size < minHeader || int64(size) > int64(len(h.raw)):
		return damaged("a header of %d bytes", size)
	}
	sum := bytes.Clone(h.raw)
	sumHeader(sum)
	h.alternate, h.firstUsable, h.lastUsable, h.entriesLBA = le.Uint64(h.raw[32:]), le.Uint64(h.raw[40:]), le.Uint64(h.raw[48:]), le.Uint64(h.raw[72:])
	count, each := le.Uint32(h.raw[80:]), le.Uint32(h.raw[84:])
	primary := at == 1
	switch {
	case !bytes.Equal(sum, h.raw):
		return damaged("the CRC of the header in sector %d is wrong", at)
	case le.Uint64(h.raw[24:]) != at:
		return damaged("the header in sector %d says that it is in sector %d", at, le.Uint64(h.raw[24:]))
	case each < minEntry || each&(each-1) != 0 || count == 0 || uint64(count)*uint64(each) > maxEntries:
		return damaged("%d entries of %d bytes", count, each)
	case h.firstUsable < 2 || h.firstUsable > h.lastUsable || h.lastUsable >= limit || h.entriesLBA >= limit:
		return damaged("the usable sectors are %d to %d", h.firstUsable, h.lastUsable)
	case primary && (h.alternate <= h.lastUsable || h.alternate >= limit), !primary && (h.alternate != 1 || at <= h.lastUsable):
		return damaged("the other header is said to be in sector %d", h.alternate)
	}
	return nil
}

// partitions decodes the entries (UEFI, table 5.6), each of them of so many bytes.
func (h *header) partitions(each int, sector int64) (list []Partition, err error) {
	le := binary.LittleEndian
	var unused [16]byte
	for i := range len(h.entries) / each {
		e := h.entries[i*each:][:each]
		if bytes.Equal(e[:16], unused[:]) {
			continue
		}
		first, last := le.Uint64(e[32:]), le.Uint64(e[40:])
		if first > last || first < h.firstUsable || last > h.lastUsable {
			return nil, damaged("partition %d has the sectors %d to %d", i+1, first, last)
		}
		h.used = max(h.used, last)
		list = append(list, Partition{
			Number: i + 1, Start: int64(first) * sector, Size: int64(last-first+1) * sector, Name: name(e[56:minEntry]),
		})
	}
	sorted := slices.SortedFunc(slices.Values(list), func(a, b Partition) int { return cmp.Compare(a.Start, b.Start) })
	for i := 1; i < len(sorted); i++ {
		if a, b := sorted[i-1], sorted[i]; a.Start+a.Size > b.Start {
			return nil, damaged("the partitions %d and %d overlap", a.Number, b.Number)
		}
	}
	return list, nil
}

// name decodes the name of a partition: UTF-16 up to a zero.
func name(b []byte) string {
	var units []uint16
	for ; len(b) >= 2; b = b[2:] {
		u := binary.LittleEndian.Uint16(b)
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units))
}
