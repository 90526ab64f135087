package sif

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/sylabs/sif/v2/pkg/sif"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

// raw is a SIF of two descriptors at byte 128, one of them used, with 100 bytes of data.
func raw() []byte {
	b := make([]byte, 128+2*585+100)
	copy(b, "#!/bin/run\n")
	copy(b[32:], "SIF_MAGIC\x0001\x0002\x00")
	for i := range 16 {
		b[48+i] = byte(i)
	}
	for i, n := range []uint64{1700000000, 1700000001, 1, 2, 128, 2 * 585, 128 + 2*585, 100} {
		binary.LittleEndian.PutUint64(b[64+8*i:], n)
	}
	used(b, 1, 1, 128+2*585, 100)
	return b
}

// used makes descriptor n of raw a primary system partition.
func used(b []byte, n int, id uint32, off, size int64) {
	d := b[128+(n-1)*585:]
	binary.LittleEndian.PutUint32(d, uint32(Partition))
	d[4] = 1
	binary.LittleEndian.PutUint32(d[5:], id)
	binary.LittleEndian.PutUint32(d[9:], 1|groupMask)
	binary.LittleEndian.PutUint64(d[17:], uint64(off))
	binary.LittleEndian.PutUint64(d[25:], uint64(size))
	binary.LittleEndian.PutUint64(d[33:], uint64(size))
	copy(d[73:], "root")
	binary.LittleEndian.PutUint32(d[201:], uint32(FSSquash))
	binary.LittleEndian.PutUint32(d[205:], uint32(PartPrimary))
	copy(d[209:], "02\x00")
}

func put64(off int, n int64) func([]byte) []byte {
	return func(b []byte) []byte {
		binary.LittleEndian.PutUint64(b[off:], uint64(n))
		return b
	}
}

func put(off int, s string) func([]byte) []byte {
	return func(b []byte) []byte {
		copy(b[off:], s)
		return b
	}
}

func cut(n int) func([]byte) []byte { return func(b []byte) []byte { return b[:n] } }

func inspect(b []byte) (*Image, error) { return Inspect(bytes.NewReader(b), int64(len(b))) }

func TestInspect(t *testing.T) {
	img, err := inspect(raw())
	if err != nil {
		t.Fatal(err)
	}
	at := seconds(raw()[64:])
	want := &Image{
		Launch: "#!/bin/run\n", Version: "01", Arch: "amd64", ID: "00010203-0405-0607-0809-0a0b0c0d0e0f",
		Created: at, Modified: at.Add(1e9), Capacity: 2, DataOffset: 1298, DataSize: 100,
		Descriptors: []Descriptor{{Number: 1, Type: Partition, ID: 1, Group: 1, Offset: 1298, Size: 100,
			Created: img.Descriptors[0].Created, Modified: img.Descriptors[0].Modified,
			Name: "root", FS: FSSquash, Part: PartPrimary, Arch: "amd64"}},
	}
	if !reflect.DeepEqual(img, want) {
		t.Errorf("got  %+v\nwant %+v", img, want)
	}
	if p := img.PrimaryPartition(); p == nil || p.Number != 1 || img.CheckRunnable() != nil {
		t.Errorf("primary partition %+v, %v", p, img.CheckRunnable())
	}
}

// Every way in which a SIF can lie, and what is said of it. Descriptor 1 starts at 128,
// descriptor 2 at 713.
var hostile = []struct {
	name       string
	change     func([]byte) []byte
	descriptor int
	want       string
}{
	{"empty", cut(0), 0, "less than a header"},
	{"cut in the header", cut(127), 0, "less than a header"},
	{"header only", cut(128), 0, "beyond the end"},
	{"cut in the table", cut(1000), 0, "beyond the end"},
	{"no data", cut(1298), 0, "beyond the end of the file at 1298"},
	{"cut by a byte", cut(1397), 0, "data at 1298, 100 bytes, is beyond the end of the file at 1397"},
	{"cut, honest data size", func(b []byte) []byte { return put64(120, 50)(b)[:1348] }, 1, "data at 1298, 100 bytes, is beyond the end of the file at 1348"},
	{"no magic", put(32, "SIF_MAGIK"), 0, "no SIF magic"},
	{"version 02", put(42, "02"), 0, `version "02\x00"`},
	{"version", put(42, "\xff\xff\xff"), 0, "version"},
	{"architecture", put(45, "xx"), 0, "architecture"},
	{"no descriptors", put64(88, 0), 0, "0 descriptors"},
	{"negative count", put64(88, -1), 0, "-1 descriptors"},
	{"huge count", put64(88, math.MaxInt64), 0, "descriptors, want 1 to"},
	{"count that wraps", put64(88, math.MaxInt64/585*2), 0, "descriptors, want 1 to"},
	{"count beyond the table", put64(88, 3), 0, "3 descriptors in 1170 bytes"},
	{"count and table beyond the file", func(b []byte) []byte { return put64(104, 16384*585)(put64(88, 16384)(b)) }, 0, "beyond the end"},
	{"free below 0", put64(80, -1), 0, "-1 of 2 descriptors free"},
	{"free above all", put64(80, 3), 0, "3 of 2 descriptors free"},
	{"table size", put64(104, 584), 0, "2 descriptors in 584 bytes"},
	{"negative table", put64(104, -1170), 0, "2 descriptors in -1170 bytes"},
	{"table in the header", put64(96, 127), 0, "overlap the header"},
	{"table before the file", put64(96, math.MinInt64), 0, "overlap the header"},
	{"table after the file", put64(96, math.MaxInt64), 0, "beyond the end"},
	{"table that wraps", put64(96, math.MaxInt64-100), 0, "beyond the end"},
	{"data in the table", put64(112, 1297), 0, "data at 1297 overlaps the descriptors"},
	{"data before the file", put64(112, -1), 0, "overlaps the descriptors"},
	{"data after the file", put64(112, 5000), 0, "beyond the end"},
	{"data that wraps", put64(112, math.MaxInt64), 0, "beyond the end"},
	{"negative data", put64(120, -1), 0, "beyond the end"},
	{"huge data", put64(120, math.MaxInt64), 0, "beyond the end"},
	{"used is 2", put(128+4, "\x02"), 1, "neither used nor free"},
	{"second used is 255", put(713+4, "\xff"), 2, "neither used nor free"},
	{"ID 0", put(128+5, "\x00\x00\x00\x00"), 1, "ID 0"},
	{"same ID", func(b []byte) []byte { used(b, 2, 1, 1298, 0); return b }, 2, "ID 1 is that of descriptor 1"},
	{"two primaries", func(b []byte) []byte { used(b, 2, 2, 1298, 0); return b }, 2, "second primary system partition after descriptor 1"},
	{"overlap", func(b []byte) []byte { used(b, 2, 2, 1397, 1); put(713+205, "\x03")(b); return b }, 2, "data overlaps that of descriptor 1"},
	{"object in the table", put64(128+17, 700), 1, "before the data of the file"},
	{"object in the header", put64(128+17, 0), 1, "before the data of the file"},
	{"object before the file", put64(128+17, math.MinInt64), 1, "before the data of the file"},
	{"object after the file", put64(128+17, 1399), 1, "beyond the end of the file at 1398"},
	{"object that wraps", put64(128+17, math.MaxInt64), 1, "beyond the end"},
	{"object ends after the file", put64(128+25, 101), 1, "data at 1298, 101 bytes, is beyond the end of the file at 1398"},
	{"negative object", put64(128+25, -1), 1, "size -1 is negative"},
	{"huge object", put64(128+25, math.MaxInt64), 1, "beyond the end"},
	{"partition architecture", put(128+209, "zz"), 1, "architecture"},
	{"partition type 0", put(128+205, "\x00"), 1, "partition without a type"},
	{"file system 0", put(128+201, "\x00"), 1, "partition without a type"},
}

func TestHostile(t *testing.T) {
	for _, c := range hostile {
		img, err := inspect(c.change(raw()))
		var format *FormatError
		if !errors.As(err, &format) || format.Descriptor != c.descriptor || !strings.Contains(format.Reason, c.want) {
			t.Errorf("%s: got %+v, %v, want descriptor %d: %s", c.name, img, err, c.descriptor, c.want)
			continue
		}
		if where := fmt.Sprintf("descriptor %d:", c.descriptor); c.descriptor > 0 && !strings.Contains(err.Error(), where) || !errkind.Has(err) {
			t.Errorf("%s: message %q", c.name, err)
		}
	}
}

func TestAccepted(t *testing.T) {
	for name, change := range map[string]func([]byte) []byte{
		"unknown data type":          put(128, "\x99\x40"),
		"unknown file system":        put(128+201, "\x77"),
		"unknown architecture":       put(45, "99"),
		"object of no bytes":         put64(128+25, 0),
		"object of no bytes, at end": func(b []byte) []byte { return put64(128+25, 0)(put64(128+17, 1398)(b)) },
		"more after the data":        func(b []byte) []byte { return append(b, 0) },
		"full name":                  put(128+73, strings.Repeat("n", 128)),
		"name that is no text":       put(128+73, "\xff\x1b[2J"),
		"rubbish in a free one":      put(713+5, strings.Repeat("\xff", 500)),
	} {
		if _, err := inspect(change(raw())); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A reader that ends before it should, or fails.
func TestReader(t *testing.T) {
	b := raw()
	for _, n := range []int{0, 100, 128, 1000} {
		if _, err := Inspect(bytes.NewReader(b[:n]), int64(len(b))); err == nil || !strings.Contains(err.Error(), "ends at") {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	if _, err := Inspect(failing{}, 1000); !errors.Is(err, os.ErrPermission) {
		t.Errorf("got %v", err)
	}
}

type failing struct{}

func (failing) ReadAt([]byte, int64) (int, error) { return 0, os.ErrPermission }

// A header that asks for much gets nothing before it is checked.
func TestAllocation(t *testing.T) {
	b := put64(88, 1<<40)(put64(104, 585<<40)(raw()))
	if n := testing.AllocsPerRun(10, func() { inspect(b) }); n > 20 {
		t.Errorf("%v allocations", n)
	}
}

func TestIs(t *testing.T) {
	if !Is(raw()[:42]) || !Is(raw()) || Is(raw()[:41]) || Is(make([]byte, 128)) || Is(nil) {
		t.Error("Is")
	}
}

func TestNames(t *testing.T) {
	for got, want := range map[string]string{
		Partition.String(): "partition", OCIBlob.String(): "OCI blob", DataType(0).String(): "type 0x0",
		DataType(0x400c).String(): "type 0x400c", FSSquash.String(): "squashfs", FSType(0).String(): "file system 0x0",
		PartPrimary.String(): "primary system", PartType(9).String(): "partition 0x9",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// buffer lets sylabs/sif load bytes.
type buffer struct{ *bytes.Reader }

func (buffer) Write([]byte) (int, error) { return 0, os.ErrPermission }
func (buffer) Truncate(int64) error      { return os.ErrPermission }

// sameAsSylabs checks that sylabs/sif sees in b what we do.
func sameAsSylabs(t *testing.T, b []byte, img *Image) {
	t.Helper()
	defer func() {
		if r := recover(); r != nil {
			t.Errorf("we accept what makes sylabs/sif panic: %v", r)
		}
	}()
	theirs, err := sif.LoadContainer(buffer{bytes.NewReader(b)})
	if err != nil {
		t.Errorf("we accept what sylabs/sif refuses: %v", err)
		return
	}
	firstOf := func(s string) string { s, _, _ = strings.Cut(s, "\x00"); return s }
	want := &Image{
		Launch: firstOf(theirs.LaunchScript()), Version: theirs.Version(), Arch: theirs.PrimaryArch(), ID: theirs.ID(),
		Created: theirs.CreatedAt().UTC(), Modified: theirs.ModifiedAt().UTC(), Capacity: int(theirs.DescriptorsTotal()),
		DataOffset: theirs.DataOffset(), DataSize: theirs.DataSize(),
	}
	theirs.WithDescriptors(func(d sif.Descriptor) bool {
		link, isGroup := d.LinkedID()
		n := len(want.Descriptors)
		our := Descriptor{
			Type: DataType(d.DataType()), ID: d.ID(), Group: d.GroupID(), Link: link, LinkIsGroup: isGroup, Offset: d.Offset(),
			Size: d.Size(), Created: d.CreatedAt().UTC(), Modified: d.ModifiedAt().UTC(), Name: firstOf(d.Name()),
		}
		if n < len(img.Descriptors) {
			our.Number = img.Descriptors[n].Number // sylabs/sif does not tell
		}
		if fs, part, arch, err := d.PartitionMetadata(); err == nil {
			our.FS, our.Part, our.Arch = FSType(fs), PartType(part), arch
		}
		if data, err := io.ReadAll(d.GetReader()); err != nil || int64(len(data)) != d.Size() {
			t.Errorf("descriptor %d: %d bytes of %d, %v", n, len(data), d.Size(), err)
		}
		want.Descriptors = append(want.Descriptors, our)
		return false
	})
	if !reflect.DeepEqual(img, want) {
		t.Errorf("we see\n%+v\nsylabs/sif sees\n%+v", img, want)
	}
}

// SIFs that sylabs/sif makes, with every kind of object, and after it deleted some.
func TestDifferential(t *testing.T) {
	object := func(kind sif.DataType, opts ...sif.DescriptorInputOpt) sif.DescriptorInput {
		input, err := sif.NewDescriptorInput(kind, strings.NewReader("some data"), opts...)
		if err != nil {
			t.Fatal(err)
		}
		return input
	}
	all := []sif.DescriptorInput{
		object(sif.DataDeffile, sif.OptObjectName("deffile")), object(sif.DataEnvVar), object(sif.DataLabels, sif.OptNoGroup()),
		object(sif.DataPartition, sif.OptPartitionMetadata(sif.FsSquash, sif.PartPrimSys, "arm64")),
		object(sif.DataPartition, sif.OptPartitionMetadata(sif.FsExt3, sif.PartOverlay, "arm64"), sif.OptGroupID(2)),
		object(sif.DataSignature, sif.OptLinkedGroupID(1)), object(sif.DataGenericJSON, sif.OptLinkedID(1)), object(sif.DataGeneric),
		object(sif.DataCryptoMessage), object(sif.DataSBOM), object(sif.DataOCIRootIndex), object(sif.DataOCIBlob),
	}
	for _, n := range []int{0, 1, 4, len(all)} {
		path := filepath.Join(t.TempDir(), "x.sif")
		f, err := sif.CreateContainerAtPath(path, sif.OptCreateWithDescriptors(all[:n]...), sif.OptCreateWithDescriptorCapacity(20))
		if err != nil {
			t.Fatal(err)
		}
		check := func() {
			t.Helper()
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			img, err := inspect(b)
			if err != nil {
				t.Fatal(err)
			}
			sameAsSylabs(t, b, img)
		}
		check()
		if n > 2 {
			if err := f.DeleteObject(2); err != nil {
				t.Fatal(err)
			}
			check()
			if err := f.DeleteObject(uint32(n), sif.OptDeleteCompact(true)); err != nil {
				t.Fatal(err)
			}
			check()
		}
		if err := f.UnloadContainer(); err != nil {
			t.Fatal(err)
		}
	}
}

func FuzzInspect(f *testing.F) {
	f.Add(raw())
	for _, c := range hostile {
		f.Add(c.change(raw()))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		img, err := inspect(b)
		if err != nil {
			return
		}
		if !Is(b) {
			t.Error("accepted, but Is says no")
		}
		sameAsSylabs(t, b, img)
	})
}
