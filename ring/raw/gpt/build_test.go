package gpt

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math"
	"unicode/utf16"
)

// An image is a disk in memory with a GPT, as the UEFI specification describes it, whose fields a test can spoil.
type image struct {
	b      []byte
	sector int64
}

// newImage makes a disk of so many sectors with the table for 128 partitions, and those partitions, as pairs of sectors.
func newImage(sector, total int64, parts ...[2]uint64) image {
	im := image{make([]byte, sector*total), sector}
	le := binary.LittleEndian
	im.b[510], im.b[511] = 0x55, 0xAA
	e := im.b[mbrEntries:]
	e[4] = typeGPT
	copy(e[5:], chs(uint64(total-1)))
	le.PutUint32(e[8:], 1)
	le.PutUint32(e[12:], uint32(min(total-1, math.MaxUint32)))
	h := im.header()
	copy(h, signature)
	entries := entriesByUEFI / sector
	for _, f := range []struct{ at, value int64 }{
		{24, 1}, {32, total - 1}, {40, 2 + entries}, {48, total - 2 - entries}, {72, 2},
	} {
		le.PutUint64(h[f.at:], uint64(f.value))
	}
	le.PutUint32(h[8:], revision)
	le.PutUint32(h[12:], minHeader)
	le.PutUint32(h[80:], 128)
	le.PutUint32(h[84:], minEntry)
	for i, p := range parts {
		e := im.entries()[i*minEntry:]
		copy(e, "a type of my own")
		le.PutUint64(e[32:], p[0])
		le.PutUint64(e[40:], p[1])
		for j, u := range utf16.Encode([]rune("größe")) {
			le.PutUint16(e[56+2*j:], u)
		}
	}
	im.sum()
	return im
}

func (im image) header() []byte  { return im.b[im.sector:][:im.sector] }
func (im image) entries() []byte { return im.b[2*im.sector:][:entriesByUEFI] }

// sum writes both CRCs of the primary table, and the backup.
func (im image) sum() {
	le := binary.LittleEndian
	h := im.header()
	size := uint64(le.Uint32(h[80:])) * uint64(le.Uint32(h[84:]))
	if size <= entriesByUEFI {
		le.PutUint32(h[88:], crc32.ChecksumIEEE(im.entries()[:size]))
	}
	if le.Uint32(h[12:]) <= uint32(im.sector) {
		sumHeader(h)
	}
	backup := im.b[int64(len(im.b))-im.sector:]
	copy(backup, h)
	last := uint64(int64(len(im.b))/im.sector - 1)
	le.PutUint64(backup[24:], last)
	le.PutUint64(backup[32:], 1)
	le.PutUint64(backup[72:], last-uint64(entriesByUEFI/im.sector))
	copy(im.b[int64(len(im.b))-im.sector-entriesByUEFI:], im.entries())
	if le.Uint32(h[12:]) <= uint32(im.sector) {
		sumHeader(backup)
	}
}

func (im image) reader() *bytes.Reader { return bytes.NewReader(im.b) }
func (im image) size() int64           { return int64(len(im.b)) }

// onto returns a disk of so many bytes with the image and the patches.
func (im image) onto(size int64, patches []Patch) image {
	b := make([]byte, size)
	copy(b, im.b)
	for _, p := range patches {
		copy(b[p.Off:][:len(p.Bytes)], p.Bytes)
	}
	return image{b, im.sector}
}
