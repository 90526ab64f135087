//go:build linux

package gpt

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/dolly-img/dolly-img/test/loopdev"
	"golang.org/x/sys/unix"
)

// A filled image is what a program has made in a file.
type filled struct {
	command string // FILE is added
	size    int64
	want    []Need
	mount   string // the type of a file system that is mounted, to see whether what is said is so
}

func fits(what string, least, most int64) []Need { return []Need{{what, least, most}} }

func filledImages() []filled {
	const mib = 1 << 20
	return []filled{
		{"mkfs.xfs -q -s size=512", 512 * mib, fits("xfs in units of 512 bytes", 1, 512), "xfs"},
		{"mkfs.xfs -q -s size=4096", 512 * mib, nil, "xfs"},
		{"mkfs.ext4 -q -b 1024 -L data", 16 * mib, fits("ext in units of 1024 bytes", 1, 1024), "ext4"},
		{"mkfs.ext4 -q -b 2048", 16 * mib, fits("ext in units of 2048 bytes", 1, 2048), "ext4"},
		{"mkfs.ext4 -q -b 4096", 16 * mib, nil, "ext4"},
		{"mkfs.vfat -S 512 -F 32", 64 * mib, fits("vfat in units of 512 bytes", 1, 512), ""},
		{"mkfs.vfat -S 512 -F 16", 64 * mib, fits("vfat in units of 512 bytes", 1, 512), ""},
		{"mkfs.vfat -S 4096 -F 16", 64 * mib, nil, ""},
		{"mkfs.vfat -S 512 -F 12 --mbr=yes", 4 * mib, fits("vfat in units of 512 bytes", 1, 512), ""},
		{"mkfs.btrfs -q", 128 * mib, nil, ""},
		{"mkswap", 16 * mib, nil, ""},
	}
}

func (m filled) make(t *testing.T, dir string) string {
	t.Helper()
	words := strings.Fields(m.command)
	_, err := exec.LookPath(words[0])
	demand(t, err)
	f, err := os.CreateTemp(dir, "image")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(m.size), f.Close()); err != nil {
		t.Fatal(err)
	}
	run(t, words[0], append(words[1:], f.Name())...)
	return f.Name()
}

func open(t *testing.T, file string) *os.File {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// What is found in images that the programs of the formats made, on the whole of them and in a partition.
func TestInside(t *testing.T) {
	for _, program := range []string{"mkfs.xfs", "mkfs.ext4", "mkfs.vfat", "mkfs.btrfs", "mkswap"} {
		_, err := exec.LookPath(program)
		demand(t, err)
	}
	dir := t.TempDir()
	for _, m := range filledImages() {
		f := open(t, m.make(t, dir))
		if got, err := Inside(f, m.size, 0); err != nil || !slices.Equal(got, m.want) {
			t.Errorf("%s: %v, %v, want %v", m.command, got, err, m.want)
		}
		if kind, err := KindOf(f, m.size); err != nil || kind != FileSystem {
			t.Errorf("%s is %q, %v", m.command, kind, err)
		}
		beginning := make([]byte, 1<<20)
		if _, err := f.ReadAt(beginning, 0); err != nil {
			t.Fatal(err)
		}
		for _, sector := range []int64{512, 4096} {
			im := newImage(sector, 4<<20/sector, [2]uint64{40, 41}, [2]uint64{256, 512})
			copy(im.b[256*sector:], beginning)
			want := fits(fmt.Sprintf("a GPT for sectors of %d bytes", sector), sector, sector)
			for _, n := range m.want {
				want = append(want, Need{n.What + " in partition 2", n.Min, n.Max})
			}
			for _, ask := range []int64{0, 512, 4096} {
				if got, err := Inside(im.reader(), im.size(), ask); err != nil || !slices.Equal(got, want) {
					t.Errorf("%s in a partition: %v, %v, want %v", m.command, got, err, want)
				}
			}
			if kind, err := KindOf(im.reader(), im.size()); err != nil || kind != Disk {
				t.Errorf("%s in a partition is %q, %v", m.command, kind, err)
			}
		}
	}
}

// The kernel mounts a file system on those disks, and only those, with whose sectors it is said to work.
func TestInsideMounts(t *testing.T) {
	dir := t.TempDir()
	for _, m := range filledImages() {
		if m.mount == "" {
			continue
		}
		file := m.make(t, dir)
		needs, err := Inside(open(t, file), m.size, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, sector := range []int{512, 4096} {
			d := loopdev.Over(t, file, loopdev.Options{Sector: sector})
			err := d.Mount(t, d.Path, m.mount, 0, func(string) {})
			if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) { // ext4 and xfs
				t.Fatal(err)
			}
			works := !slices.ContainsFunc(needs, func(n Need) bool { return !n.Fits(int64(sector)) })
			if works != (err == nil) {
				t.Errorf("%s with sectors of %d bytes: mount says %v, needs are %v", m.command, sector, err, needs)
			}
			if err := d.Detach(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// The sectors of an MBR are told by what its partitions begin with, unless the disk's are known.
func TestInsideMBR(t *testing.T) {
	for _, sector := range []int64{512, 4096} {
		disk := make([]byte, 4<<20)
		copy(disk, mbrOf([3]uint32{0x83, 64, 64}, [3]uint32{0x83, 128, 256}))
		copy(disk[128*sector:], "XFSB")
		disk[128*sector+102] = 0x10
		for ask, want := range map[int64]int64{0: sector, 512: 512, 4096: 4096} {
			got, err := Inside(bytes.NewReader(disk), int64(len(disk)), ask)
			if err != nil || !slices.Equal(got, fits(fmt.Sprintf("an MBR for sectors of %d bytes", want), want, want)) {
				t.Errorf("made with %d bytes, from a disk with %d: %v, %v", sector, ask, got, err)
			}
		}
	}
	empty := append(mbrOf([3]uint32{0x83, 64, 64}), make([]byte, 1<<20)...)
	if got, err := Inside(bytes.NewReader(empty), int64(len(empty)), 0); err != nil || len(got) != 1 || got[0].Max != 512 {
		t.Errorf("with nothing in it: %v, %v", got, err)
	}
}

func TestKind(t *testing.T) {
	withMBR := func(at int, b string) []byte {
		disk := append(mbrOf([3]uint32{0x83, 64, 64}), make([]byte, 1<<20)...)
		copy(disk[at:], b)
		return disk
	}
	damaged := spoiledImage()
	clear(damaged.header())
	ext := "\x01\x00\x00\x00" + strings.Repeat("\x00", 28) + "\x53\xEF"
	for _, tt := range []struct {
		name string
		b    []byte
		want Kind
	}{
		{"nothing", nil, Unknown},
		{"zeros", make([]byte, 1<<20), Unknown},
		{"text", []byte(strings.Repeat("hello, world\n", 100)), Unknown},
		{"MBR", withMBR(0, ""), Disk},
		{"a damaged GPT", damaged.b, Disk},
		{"a GPT for larger sectors", newImage(4096, 256).b, Disk},
		{"a hybrid ISO", withMBR(32769, "CD001"), Disk},
		{"an MBR and ext", withMBR(1024+24, ext), Unknown},
		{"btrfs", append(make([]byte, 65600), "_BHRfS_M"...), FileSystem},
		{"ext4 that is not there to the end", append(make([]byte, 1024+24), ext...), FileSystem},
	} {
		if got, err := KindOf(bytes.NewReader(tt.b), int64(len(tt.b))); err != nil || got != tt.want {
			t.Errorf("%s is %q, %v, want %q", tt.name, got, err, tt.want)
		}
	}
	fails := failing{bytes.NewReader(withMBR(0, "")), 4096}
	if _, err := KindOf(fails, 1<<20); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("a disk that cannot be read: %v", err)
	}
	if _, err := Inside(fails, 1<<20, 0); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("a disk that cannot be read: %v", err)
	}
}
