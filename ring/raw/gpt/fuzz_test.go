package gpt

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"
)

// FuzzRead reads a disk of 256 sectors whose MBR, header and entries begin with what the fuzzer gives. What is
// valid stays valid on a larger disk.
func FuzzRead(f *testing.F) {
	for _, tt := range spoiled {
		im := spoiledImage()
		tt.spoil(im)
		f.Add(im.b[440:512], im.header()[:92], im.entries()[:256], false, tt.sum)
	}
	big := newImage(4096, 256, [2]uint64{40, 99}, [2]uint64{100, 120})
	f.Add(big.b[440:512], big.header()[:92], big.entries()[:256], true, true)
	f.Add(mbrOf([3]uint32{0x05, 2, 8}, [3]uint32{0x83, 3, 9})[440:], []byte{}, mbrOf([3]uint32{0x83, 1, 1}, [3]uint32{0x05, 1, 1}), false, false)
	f.Fuzz(func(t *testing.T, mbr, header, entries []byte, large, sum bool) {
		sector := int64(512)
		if large {
			sector = 4096
		}
		im := image{make([]byte, 256*sector), sector}
		copy(im.b[440:512], mbr)
		copy(im.header(), header)
		copy(im.entries(), entries)
		if sum {
			im.sum()
		}
		table, err := Read(im.reader(), im.size(), sector)
		var other *SectorError
		if err != nil && !errors.Is(err, ErrNone) && !errors.Is(err, ErrDamaged) && !errors.As(err, &other) {
			t.Fatal(err)
		}
		for _, ask := range []int64{0, 512, 4096} {
			if _, err := Inside(im.reader(), im.size(), ask); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := KindOf(im.reader(), im.size()); err != nil {
			t.Fatal(err)
		}
		for _, more := range []int64{0, 1, 33, 4000} {
			target := im.size() + more*sector
			patches, notes, failed := Patches(im.reader(), im.size(), target, sector)
			if (failed != nil) != errors.As(err, &other) {
				t.Fatal(failed)
			}
			if len(patches) == 0 {
				continue
			}
			disk := im.onto(target, patches)
			moved, err := Read(disk.reader(), target, sector)
			if err != nil || more == 0 || !slices.Equal(moved.Partitions, table.Partitions) {
				t.Fatalf("a disk that is %d sectors larger: %v, was %+v, is %+v, %q", more, err, table, moved, notes)
			}
			if again, notes, err := Patches(disk.reader(), target, target, sector); len(again) > 0 || len(notes) > 0 || err != nil {
				t.Fatalf("a disk that is %d sectors larger: %v %q %v", more, again, notes, err)
			}
		}
	})
}

// FuzzInside looks at bytes that are a file system or none.
func FuzzInside(f *testing.F) {
	f.Add([]byte("XFSB"), uint16(0))
	f.Add([]byte("\x53\xEF"), uint16(1080))
	f.Add([]byte("CD001"), uint16(32769))
	f.Fuzz(func(t *testing.T, b []byte, at uint16) {
		whole := append(make([]byte, at), b...)
		size := int64(len(whole))
		needs, err := Inside(io.NewSectionReader(bytes.NewReader(whole), 0, size), size, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range needs {
			if n.Min > n.Max || n.What == "" || !n.Fits(n.Min) || !n.Fits(n.Max) {
				t.Errorf("%+v", n)
			}
		}
	})
}
