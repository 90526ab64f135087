package gpt

import (
	"encoding/binary"
	"errors"
	"io"
)

const (
	mbrSize      = 512
	mbrEntries   = 446 // the offset of the first of four entries of 16 bytes
	mbrEntry     = 16
	typeGPT      = 0xEE
	maxLogical   = 256 // partitions of a disk, as for the Linux kernel
	firstLogical = 5
)

// An entry is one of the four of an MBR.
type entry struct {
	status, kind   byte
	first, sectors uint32
}

func (e entry) empty() bool    { return e.kind == 0 || e.sectors == 0 }
func (e entry) extended() bool { return e.kind == 0x05 || e.kind == 0x0F || e.kind == 0x85 }

// parseMBR decodes the entries of a sector, and reports whether it is an MBR with a partition. The first sector of FAT has
// the same signature; it has code or text where the entries are, or nothing.
func parseMBR(b *[mbrSize]byte) (entries [4]entry, ok bool) {
	if b[510] != 0x55 || b[511] != 0xAA {
		return entries, false
	}
	le := binary.LittleEndian
	for i := range entries {
		e := b[mbrEntries+i*mbrEntry:]
		entries[i] = entry{e[0], e[4], le.Uint32(e[8:]), le.Uint32(e[12:])}
		if e[0] != 0 && e[0] != 0x80 {
			return entries, false
		}
		if !entries[i].empty() {
			if entries[i].first == 0 {
				return entries, false
			}
			ok = true
		}
	}
	return entries, ok
}

// protection reports whether entries protect a GPT, and whether they name partitions beside.
func protection(entries [4]entry) (others, protective bool) {
	for _, e := range entries {
		switch {
		case e.kind == typeGPT && e.first == 1:
			protective = true
		case !e.empty():
			others = true
		}
	}
	return others, protective
}

// partitionsOfMBR lists the partitions of an MBR, and follows the chain of its extended ones.
func partitionsOfMBR(image io.ReaderAt, size, sector int64, entries [4]entry) (list []Partition, err error) {
	at := func(e entry, base uint64) Partition {
		return Partition{Start: int64(base+uint64(e.first)) * sector, Size: int64(e.sectors) * sector, Extended: e.extended()}
	}
	var logical []Partition
	for i, e := range entries {
		if e.empty() {
			continue
		}
		p := at(e, 0)
		p.Number = i + 1
		list = append(list, p)
		if !e.extended() {
			continue
		}
		// Each link of the chain has one partition, from itself on, and the next link, from the extended partition on.
		for next, links := uint64(e.first), 0; next != 0; links++ {
			if links == maxLogical {
				return nil, damaged("the chain of extended partitions has more than %d links", maxLogical)
			}
			here := next
			b, err := readAt(image, size, int64(here)*sector, mbrSize)
			if errors.Is(err, io.ErrUnexpectedEOF) {
				return nil, damaged("the chain of extended partitions leads to sector %d, behind the end", here)
			} else if err != nil {
				return nil, err
			}
			chain, ok := parseMBR((*[mbrSize]byte)(b))
			if !ok && links > 0 {
				return nil, damaged("the chain of extended partitions leads to sector %d, where none is", here)
			}
			next = 0
			for _, c := range chain {
				switch {
				case !ok || c.empty():
				case c.extended():
					next = uint64(e.first) + uint64(c.first)
				default:
					logical = append(logical, at(c, here))
				}
			}
		}
	}
	for i := range logical {
		logical[i].Number = firstLogical + i
	}
	return append(list, logical...), nil
}
