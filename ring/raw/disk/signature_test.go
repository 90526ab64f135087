package disk

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dolly-img/dolly-img/test/loopdev"
)

// made is a file that a program of another project has made.
type made struct {
	name string
	size int64
	make [][]string // commands, in which FILE is the file and DIR a directory with files
	want []string
}

var everyFormat = []made{
	{"gpt", 8 << 20, [][]string{{"sgdisk", "-n", "1:0:+2M", "FILE"}}, []string{"gpt"}},
	{"mbr", 8 << 20, [][]string{{"sh", "-c", "echo 2048,4096,83 | sfdisk -q FILE"}}, []string{"mbr"}},
	{"ext2", 8 << 20, [][]string{{"mkfs.ext2", "-q", "-L", "data", "FILE"}}, []string{`ext2 "data"`}},
	{"ext3", 16 << 20, [][]string{{"mkfs.ext3", "-q", "FILE"}}, []string{"ext3"}},
	{"ext4", 16 << 20, [][]string{{"mkfs.ext4", "-q", "-L", "root", "FILE"}}, []string{`ext4 "root"`}},
	{"ext4 without a journal", 16 << 20, [][]string{{"mkfs.ext4", "-q", "-O", "^has_journal", "FILE"}}, []string{"ext4"}},
	{"xfs", 320 << 20, [][]string{{"mkfs.xfs", "-q", "-L", "scratch", "FILE"}}, []string{`xfs "scratch"`}},
	{"btrfs", 128 << 20, [][]string{{"mkfs.btrfs", "-q", "-L", "pool", "FILE"}}, []string{`btrfs "pool"`}},
	{"FAT12", 2 << 20, [][]string{{"mkfs.vfat", "-F", "12", "FILE"}}, []string{"vfat"}},
	{"FAT16", 32 << 20, [][]string{{"mkfs.vfat", "-F", "16", "-n", "BOOT", "FILE"}}, []string{`vfat "BOOT"`}},
	{"FAT32", 64 << 20, [][]string{{"mkfs.vfat", "-F", "32", "-n", "EFI", "FILE"}}, []string{`vfat "EFI"`}},
	{"swap", 8 << 20, [][]string{{"mkswap", "-q", "-L", "swap0", "FILE"}}, []string{`swap "swap0"`}},
	{"swap of large pages", 8 << 20, [][]string{{"mkswap", "-q", "-p", "65536", "FILE"}}, []string{"swap"}},
	{"squashfs", 0, [][]string{{"mksquashfs", "DIR", "FILE", "-quiet", "-no-progress", "-noappend"}}, []string{"squashfs"}},
	{"iso9660", 0, [][]string{{"genisoimage", "-quiet", "-V", "MEDIUM", "-o", "FILE", "DIR"}}, []string{`iso9660 "MEDIUM"`}},
	{"LUKS1", 32 << 20, [][]string{{"sh", "-c", "echo x | cryptsetup luksFormat -q --type luks1 --pbkdf-force-iterations 1000 FILE -"}}, []string{"LUKS1"}},
	{"LUKS2", 32 << 20, [][]string{{"sh", "-c", "echo x | cryptsetup luksFormat -q --type luks2 --label secret --pbkdf pbkdf2 --pbkdf-force-iterations 1000 FILE -"}}, []string{`LUKS2 "secret"`}},
	{"table over an old file system", 16 << 20, [][]string{{"mkfs.ext4", "-q", "-L", "old", "FILE"}, {"sgdisk", "-n", "1:0:+2M", "FILE"}}, nil},
}

// Wipefs of util-linux finds the same formats and labels in what the programs of these formats make.
func TestSignaturesAsWipefs(t *testing.T) {
	loopdev.Need(t, "sgdisk", "sfdisk", "mkfs.ext4", "mkfs.xfs", "mkfs.btrfs", "mkfs.vfat", "mksquashfs", "genisoimage", "cryptsetup", "wipefs")
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("of a file system"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, f := range everyFormat {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "device")
			if f.size > 0 {
				if err := os.WriteFile(file, nil, 0o600); err != nil {
					t.Fatal(err)
				}
				if err := os.Truncate(file, f.size); err != nil {
					t.Fatal(err)
				}
			}
			for _, args := range f.make {
				args = slices.Clone(args)
				for i := range args {
					args[i] = strings.NewReplacer("FILE", file, "DIR", dir).Replace(args[i])
				}
				if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
					t.Fatalf("%v: %v: %s", args, err, out)
				}
			}
			got := texts(t, file)
			if f.want != nil && !slices.Equal(got, f.want) {
				t.Errorf("got %q, want %q", got, f.want)
			}
			if theirs := byWipefs(t, file); !slices.Equal(got, theirs) {
				t.Errorf("got %q, wipefs says %q", got, theirs)
			}
		})
	}
}

func texts(t *testing.T, file string) (list []string) {
	t.Helper()
	r, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	info, err := r.Stat()
	if err != nil {
		t.Fatal(err)
	}
	found, err := Signatures(r, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range found {
		list = append(list, s.String())
	}
	return list
}

// byWipefs returns what wipefs finds, in our words. It names a table once for each of its copies, and the protective
// record of a GUID partition table, too.
func byWipefs(t *testing.T, file string) (list []string) {
	t.Helper()
	out, err := exec.Command("wipefs", "--json", file).Output()
	if err != nil {
		t.Fatal(err)
	}
	var said struct {
		Signatures []struct{ Type, Label string }
	}
	if err := json.Unmarshal(out, &said); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	gpt := slices.ContainsFunc(said.Signatures, func(s struct{ Type, Label string }) bool { return s.Type == "gpt" })
	for _, s := range said.Signatures {
		own := Signature{s.Type, s.Label}
		switch s.Type {
		case "dos", "PMBR":
			if own.Type = "mbr"; gpt {
				continue
			}
		case "crypto_LUKS":
			version, err := exec.Command("blkid", "-p", "-o", "value", "-s", "VERSION", file).Output()
			if err != nil {
				t.Fatal(err)
			}
			own.Type = "LUKS" + strings.TrimSpace(string(version))
		case "linux_raid_member":
			version, err := exec.Command("blkid", "-p", "-o", "value", "-s", "VERSION", file).Output()
			if err != nil {
				t.Fatal(err)
			}
			own.Type = "MD " + strings.TrimSpace(string(version))
			own.Label = strings.TrimSpace(own.Label)
		case "LVM2_member":
			own.Type = "LVM2"
		}
		if text := own.String(); !slices.Contains(list, text) {
			list = append(list, text)
		}
	}
	return list
}

// device is a device in memory.
type device []byte

func (d device) ReadAt(b []byte, off int64) (int, error) { return bytes.NewReader(d).ReadAt(b, off) }

func (d device) put(off int, s string) device { copy(d[off:], s); return d }

// raid makes the superblock of an MD array of version 1, with its checksum (md_p.h of the kernel), so that other programs
// believe it.
func raid(d device, at int, name string) device {
	b := d[at : at+256]
	copy(b, mdMagic)
	binary.LittleEndian.PutUint32(b[4:], 1)
	copy(b[16:32], "0123456789abcdef")
	copy(b[32:64], name)
	binary.LittleEndian.PutUint64(b[144:], uint64(at/512)) // super_offset
	sum := uint64(0)
	for i := 0; i < 256; i += 4 {
		sum += uint64(binary.LittleEndian.Uint32(b[i:]))
	}
	binary.LittleEndian.PutUint32(b[216:], uint32(sum&0xffffffff)+uint32(sum>>32))
	return d
}

// What cannot be made of a file by its own program is written here, from its description.
func TestSignaturesOfMembers(t *testing.T) {
	const size = 4<<20 + 7*512
	lvm, err := os.ReadFile("testdata/lvm2.head") // made by pvcreate and vgcreate of lvm2 2.03.16
	if err != nil {
		t.Fatal(err)
	}
	blank := func() device { return make(device, size) }
	end := (size/512 - 16) &^ 7 * 512
	for _, tt := range []struct {
		d    device
		want []string
	}{
		{blank(), nil},
		{make(device, 0), nil},
		{make(device, 700), nil},
		{device(bytes.Repeat([]byte{0xff}, 700)), []string{UnknownType}},
		{device(bytes.Repeat([]byte{0x55, 0xaa}, 3<<20)), []string{UnknownType}},
		{blank().put(size-1, "x"), []string{UnknownType}},
		{blank().put(0, string(lvm)), []string{`LVM2 "vg0"`}},
		{blank().put(0, string(lvm[:4096])), []string{"LVM2"}},
		{raid(blank(), end, "node:7"), []string{`MD 1.0 "node:7"`}},
		{raid(blank(), 0, "node:7"), []string{`MD 1.1 "node:7"`}},
		{raid(blank(), 4096, "node:7"), []string{`MD 1.2 "node:7"`}},
		{blank().put(size&^0xffff-0x10000, mdMagic+"\x00\x00\x00\x00\x5a\x00\x00\x00"), []string{"MD 0.90"}},
		{blank().put(HalfWrittenAt, HalfWritten), []string{HalfWrittenType}},
		{blank().put(0, HalfWritten), []string{HalfWrittenType}},
		{blank().put(size-4096, "EFI PART\x00\x00\x01\x00"), []string{"gpt"}},
		// What an array leaves at the end of a disk that got a file system later is found beside it.
		{raid(blank(), end, "old").put(0, "XFSB"), []string{`MD 1.0 "old"`, "xfs"}},
	} {
		found, err := Signatures(tt.d, int64(len(tt.d)))
		var got []string
		for _, s := range found {
			got = append(got, s.String())
		}
		if err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%d bytes: got %q, %v, want %q", len(tt.d), got, err, tt.want)
		}
		if _, err := exec.LookPath("wipefs"); err != nil || len(tt.want) != 1 || !strings.HasPrefix(tt.want[0], "MD 1.") {
			continue
		}
		file := filepath.Join(t.TempDir(), "device")
		if err := os.WriteFile(file, tt.d, 0o600); err != nil {
			t.Fatal(err)
		}
		if theirs := byWipefs(t, file); !slices.Equal(got, theirs) {
			t.Errorf("got %q, wipefs says %q", got, theirs)
		}
	}
}

// A device that ends, or fails, before its size does is an error and no blank device.
func TestSignaturesOfShortDevice(t *testing.T) {
	if got, err := Signatures(make(device, 1000), 4096); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v, %v", got, err)
	}
}

func FuzzSignatures(f *testing.F) {
	f.Add([]byte("XFSB"), uint32(4096), uint32(0))
	f.Fuzz(func(t *testing.T, data []byte, size, at uint32) {
		d := make(device, size%(3<<20))
		copy(d[min(len(d), int(at)):], data)
		found, err := Signatures(d, int64(len(d)))
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range found {
			if s.Type == "" || len(s.String()) > 4096 {
				t.Errorf("%q", s)
			}
		}
		if blank := len(bytes.Trim(d, "\x00")) == 0; blank && len(found) > 0 {
			t.Errorf("a blank device holds %q", found)
		}
	})
}
