package gpt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

func TestRead(t *testing.T) {
	for _, sector := range []int64{512, 4096} {
		im := newImage(sector, 256, [2]uint64{40, 99}, [2]uint64{100, 100})
		table, err := Read(im.reader(), im.size(), sector)
		if err != nil {
			t.Fatal(err)
		}
		want := []Partition{
			{Number: 1, Start: 40 * sector, Size: 60 * sector, Name: "größe"},
			{Number: 2, Start: 100 * sector, Size: sector, Name: "größe"},
		}
		if table.Scheme != GPT || table.Sector != sector || table.Hybrid || !slices.Equal(table.Partitions, want) {
			t.Errorf("%+v", table)
		}
		// The other size of a sector.
		other := 512 + 4096 - sector
		var wrong *SectorError
		if _, err := Read(im.reader(), im.size(), other); !errors.As(err, &wrong) || wrong.Table != sector || wrong.Disk != other {
			t.Errorf("with sectors of %d bytes: %v", other, err)
		}
	}
}

func put[T uint8 | uint32 | uint64](b []byte, v T) { binary.Encode(b, binary.LittleEndian, v) }

// spoiled are damages to a disk of 256 sectors with the partitions 40 to 99 and 100 to 120. With sum both CRCs are
// those of the damaged table, so that the damage itself has to be found.
var spoiled = []struct {
	name  string
	spoil func(im image)
	sum   bool
	want  string
}{
	{"CRC of the header", func(im image) { im.header()[56]++ }, false, "CRC of the header"},
	{"CRC of the entries", func(im image) { im.entries()[1]++ }, false, "CRC of the entries"},
	{"no header", func(im image) { clear(im.header()) }, false, "no header of a GPT"},
	{"no MBR", func(im image) { clear(im.b[:512]) }, false, "no protective MBR"},
	{"an MBR that protects from sector 2 on", func(im image) { put(im.b[mbrEntries+8:], uint32(2)) }, false, ""},
	{"revision", func(im image) { put(im.header()[8:], uint32(2<<16)) }, true, "revision"},
	{"a header that is too short", func(im image) { put(im.header()[12:], uint32(91)) }, true, "header of 91 bytes"},
	{"a header that is longer than a sector", func(im image) { put(im.header()[12:], uint32(1<<31)) }, false, "header of 2147483648 bytes"},
	{"a header of another sector", func(im image) { put(im.header()[24:], uint64(2)) }, true, "says that it is in sector 2"},
	{"entries of 96 bytes", func(im image) { put(im.header()[84:], uint32(96)) }, true, "128 entries of 96 bytes"},
	{"entries of 384 bytes", func(im image) { put(im.header()[84:], uint32(384)) }, true, "128 entries of 384 bytes"},
	{"no entries", func(im image) { put(im.header()[80:], uint32(0)) }, true, "0 entries"},
	{"entries of many bytes", func(im image) { put(im.header()[80:], uint32(1<<31)) }, true, "2147483648 entries"},
	{"entries behind the end", func(im image) { put(im.header()[72:], uint64(255)) }, true, "ends before the entries"},
	{"entries far behind the end", func(im image) { put(im.header()[72:], uint64(1<<63)) }, true, "usable sectors"},
	{"entries on the header", func(im image) { put(im.header()[72:], uint64(1)) }, true, "CRC of the entries"},
	{"entries where partitions are", func(im image) { put(im.header()[40:], uint64(33)) }, true, "lie at sector 2"},
	{"first usable sector behind the last", func(im image) { put(im.header()[40:], uint64(300)) }, true, "usable sectors are 300 to 222"},
	{"last usable sector far away", func(im image) { put(im.header()[48:], uint64(1<<62)) }, true, "usable sectors"},
	{"backup before the last usable sector", func(im image) { put(im.header()[32:], uint64(222)) }, true, "other header is said to be in sector 222"},
	{"backup far away", func(im image) { put(im.header()[32:], uint64(1<<63)) }, true, "other header"},
	{"partition that ends before it begins", func(im image) { put(im.entries()[40:], uint64(39)) }, true, "partition 1 has the sectors 40 to 39"},
	{"partition in the table", func(im image) { put(im.entries()[32:], uint64(33)) }, true, "partition 1 has the sectors 33 to 99"},
	{"partition behind the last usable sector", func(im image) { put(im.entries()[128+40:], uint64(223)) }, true, "partition 2 has the sectors 100 to 223"},
	{"partitions that overlap", func(im image) { put(im.entries()[40:], uint64(100)) }, true, "the partitions 1 and 2 overlap"},
}

func spoiledImage() image { return newImage(512, 256, [2]uint64{40, 99}, [2]uint64{100, 120}) }

func TestReadSpoiled(t *testing.T) {
	for _, tt := range spoiled {
		im := spoiledImage()
		tt.spoil(im)
		if tt.sum {
			im.sum()
		}
		table, err := Read(im.reader(), im.size(), 512)
		if tt.want == "" { // an MBR with one partition of an odd type
			if err != nil || table.Scheme != MBR || len(table.Partitions) != 1 {
				t.Errorf("%s: %+v, %v", tt.name, table, err)
			}
			continue
		}
		if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), tt.want) || table != nil {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

// A disk whose reading fails is not one without a table.
func TestReadError(t *testing.T) {
	im := spoiledImage()
	for _, end := range []int64{0, 511, 512, 700, 1024, 17000} {
		_, err := Read(failing{im.reader(), end}, im.size(), 512)
		if !errors.Is(err, io.ErrNoProgress) {
			t.Errorf("a disk that fails at byte %d: %v", end, err)
		}
	}
	for _, size := range []int64{0, 511, 513, 1024, 17000} {
		want := ErrDamaged
		if size < 512 {
			want = ErrNone
		}
		if _, err := Read(bytes.NewReader(im.b[:size]), size, 512); !errors.Is(err, want) {
			t.Errorf("a disk of %d bytes: %v", size, err)
		}
	}
	if _, err := Read(im.reader(), im.size(), 520); err == nil || !strings.Contains(err.Error(), "520") {
		t.Errorf("sectors of 520 bytes: %v", err)
	}
}

// failing fails where bytes from end on are asked for.
type failing struct {
	io.ReaderAt
	end int64
}

func (f failing) ReadAt(b []byte, off int64) (int, error) {
	if off+int64(len(b)) > f.end {
		return 0, io.ErrNoProgress
	}
	return f.ReaderAt.ReadAt(b, off)
}

// mbrOf makes a sector with the entries of an MBR: kind, first sector, number of sectors.
func mbrOf(entries ...[3]uint32) []byte {
	b := make([]byte, 512)
	b[510], b[511] = 0x55, 0xAA
	for i, e := range entries {
		at := b[mbrEntries+i*mbrEntry:]
		at[4] = byte(e[0])
		put(at[8:], e[1])
		put(at[12:], e[2])
	}
	return b
}

func TestReadMBR(t *testing.T) {
	disk := make([]byte, 512*512)
	copy(disk, mbrOf([3]uint32{0x83, 8, 8}, [3]uint32{0, 0, 0}, [3]uint32{0x05, 32, 400}))
	// The chain need not be in the order of the disk.
	copy(disk[512*32:], mbrOf([3]uint32{0x83, 1, 10}, [3]uint32{0x05, 100, 50}))
	copy(disk[512*132:], mbrOf([3]uint32{0x82, 2, 20}, [3]uint32{0x05, 50, 50}))
	copy(disk[512*82:], mbrOf([3]uint32{0x83, 4, 6}))
	for _, sector := range []int64{512} {
		table, err := Read(bytes.NewReader(disk), int64(len(disk)), sector)
		if err != nil {
			t.Fatal(err)
		}
		want := []Partition{
			{Number: 1, Start: 8 * 512, Size: 8 * 512}, {Number: 3, Start: 32 * 512, Size: 400 * 512, Extended: true},
			{Number: 5, Start: 33 * 512, Size: 10 * 512}, {Number: 6, Start: 134 * 512, Size: 20 * 512}, {Number: 7, Start: 86 * 512, Size: 6 * 512},
		}
		if table.Scheme != MBR || !slices.Equal(table.Partitions, want) {
			t.Errorf("%+v", table)
		}
	}
	for _, tt := range []struct {
		name string
		at   int64
		b    []byte
		want string
	}{
		{"a chain in a circle", 82, mbrOf([3]uint32{0x83, 4, 6}, [3]uint32{0x05, 100, 50}), "more than 256 links"},
		{"a chain that leads nowhere", 82, make([]byte, 512), "sector 82, where none is"},
		{"a chain behind the end", 82, mbrOf([3]uint32{0x83, 4, 6}, [3]uint32{0x05, 500, 50}), "sector 532, behind the end"},
	} {
		d := bytes.Clone(disk)
		copy(d[512*tt.at:], tt.b)
		if _, err := Read(bytes.NewReader(d), int64(len(d)), 512); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
	// Not an MBR: no partition, a state that is none, a partition on the MBR itself (as mkfs.vfat --mbr makes it).
	for _, b := range [][]byte{mbrOf(), mbrOf([3]uint32{0x83, 0, 8}), append(mbrOf([3]uint32{0x83, 8, 8})[:511], 0)} {
		if _, err := Read(bytes.NewReader(b), 512, 512); !errors.Is(err, ErrNone) {
			t.Errorf("%x: %v", b[mbrEntries:], err)
		}
	}
}
