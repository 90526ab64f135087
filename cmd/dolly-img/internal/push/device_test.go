package push

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
	"github.com/dolly-img/dolly-img/ring/raw/expand"
	"github.com/dolly-img/dolly-img/test/loopdev"
)

const inXFS = "xfs in units of 512 bytes"

// smallImages are a disk with an MBR and XFS in its first partition, and that XFS alone.
func smallImages() (disk, xfs []byte) {
	xfs = make([]byte, 3<<20)
	copy(xfs, "XFSB")
	xfs[102] = 2 // sectors of 512 bytes
	disk = append(make([]byte, 1<<20), xfs...)
	copy(disk[446:], "\x00\x00\x00\x00\x83\x00\x00\x00\x00\x08\x00\x00\x00\x08\x00\x00")
	disk[510], disk[511] = 0x55, 0xAA
	return disk, xfs
}

// What is an image, what it and its partitions hold, and in what its table counts, of files as they are and compressed. Of the
// latter only the beginning is known.
func TestToDevice(t *testing.T) {
	disk, xfs := smallImages()
	two := append(bytes.Clone(disk), "XFSB"...)
	copy(two[462:], "\x00\x00\x00\x00\x83\x00\x00\x00\x00\x20\x00\x00\x00\x08\x00\x00")
	for _, tt := range []struct {
		name  string
		image []byte
		// holds is what it holds, and packed what is known of that when it is compressed.
		holds, packed string
		want          meta.Device
	}{
		{"disk", disk, "mbr, xfs", "mbr, xfs", meta.Device{Holds: meta.HoldsDisk, Sectors: []meta.Sectors{
			{What: "an MBR for sectors of 512 bytes", Least: 512, Most: 512}, {What: inXFS + " in partition 1", Least: 1, Most: 512},
		}}},
		{"two", append(two, make([]byte, 1<<20)...), "mbr, xfs, xfs", "mbr, xfs, and more", meta.Device{Holds: meta.HoldsDisk, Sectors: []meta.Sectors{
			{What: "an MBR for sectors of 512 bytes", Least: 512, Most: 512}, {What: inXFS + " in partition 1", Least: 1, Most: 512},
		}}},
		{"xfs", xfs, "xfs", "xfs", meta.Device{Holds: meta.HoldsFileSystem, Sectors: []meta.Sectors{{What: inXFS, Least: 1, Most: 512}}}},
		{"zeros", make([]byte, 1<<20), "nothing", "nothing", meta.Device{}},
	} {
		var packed bytes.Buffer
		z := gzip.NewWriter(&packed)
		_, err := z.Write(tt.image)
		if err == nil {
			err = z.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		for name, b := range map[string][]byte{"image": tt.image, "image.gz": packed.Bytes()} {
			path := filepath.Join(t.TempDir(), name)
			if err := os.WriteFile(path, b, 0o640); err != nil {
				t.Fatal(err)
			}
			m := &meta.Transfer{Kind: meta.KindRaw, Output: "device:system", Device: &meta.Device{}}
			in := File{Path: path, Format: expand.Auto, Note: func(error) {}}
			p := new(Push)
			s, err := in.Open(t.Context(), p, m)
			if err != nil {
				t.Fatal(err)
			}
			if want := map[string]string{"image": tt.holds, "image.gz": tt.packed}[name]; p.holds != want {
				t.Errorf("%s, %s: holds %s, want %s", tt.name, name, p.holds, want)
			}
			if !reflect.DeepEqual(*m.Device, tt.want) {
				t.Errorf("%s, %s: %+v, want %+v", tt.name, name, *m.Device, tt.want)
			}
			if _, err := m.Encode(); err != nil {
				t.Errorf("%s, %s: %v", tt.name, name, err)
			}
			if err := s.(io.Closer).Close(); err != nil {
				t.Error(err)
			}
		}
	}
	m := &meta.Transfer{Kind: meta.KindRaw, Output: "device:system", Device: &meta.Device{}}
	if _, err := (File{Path: "-", Stream: strings.NewReader("x"), NoSpool: true}).Open(t.Context(), new(Push), m); err == nil || !strings.Contains(err.Error(), "length") {
		t.Errorf("a stream: %v", err)
	}
}

// A GPT without its header.
func TestToDeviceDamaged(t *testing.T) {
	disk, _ := smallImages()
	copy(disk[446:], "\x00\x00\x02\x00\xee\xff\xff\xff\x01\x00\x00\x00\xff\x1f\x00\x00")
	damaged := filepath.Join(t.TempDir(), "damaged")
	if err := os.WriteFile(damaged, disk, 0o600); err != nil {
		t.Fatal(err)
	}
	var notes []string
	in := File{Path: damaged, Note: func(err error) { notes = append(notes, err.Error()) }}
	s, err := in.Open(t.Context(), new(Push), &meta.Transfer{Kind: meta.KindRaw, Output: "device:system", Device: &meta.Device{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.(io.Closer).Close(); err != nil || len(notes) != 1 || !strings.Contains(notes[0], "no header of a GPT") {
		t.Errorf("a damaged table: %q, %v", notes, err)
	}
}

// A device knows its sectors, and is read behind what is read of a file that is expanded.
func TestToDeviceFromDevice(t *testing.T) {
	disk, xfs := smallImages()
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, append(disk, make([]byte, 8<<20)...), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(xfs[:512], 2048*4096); err != nil {
		t.Fatal(err)
	}
	d := loopdev.Over(t, path, loopdev.Options{Sector: 4096})
	m := &meta.Transfer{Kind: meta.KindRaw, Output: "device:system", Device: &meta.Device{}}
	source, err := File{Path: d.Path, Note: func(error) {}}.Open(t.Context(), new(Push), m)
	if err != nil {
		t.Fatal(err)
	}
	want := meta.Device{Holds: meta.HoldsDisk, Sectors: []meta.Sectors{
		{What: "an MBR for sectors of 4096 bytes", Least: 4096, Most: 4096}, {What: inXFS + " in partition 1", Least: 1, Most: 512},
	}}
	if err := source.(io.Closer).Close(); err != nil || !reflect.DeepEqual(*m.Device, want) {
		t.Errorf("a device: %+v, %v, want %+v", *m.Device, err, want)
	}
}
