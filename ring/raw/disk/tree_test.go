package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tree stands for a machine: files in the places and with the texts that a kernel has.
type tree struct {
	t   *testing.T
	dir string
}

func newTree(t *testing.T) *tree {
	tr := &tree{t, t.TempDir()}
	tr.put("proc/self/mountinfo", "22 1 0:21 / /proc rw - proc proc rw\n")
	tr.put("sys/class/block/.keep", "")
	if err := os.Remove(filepath.Join(tr.dir, "sys/class/block/.keep")); err != nil {
		t.Fatal(err)
	}
	return tr
}

// roots are those of the tree. A file there is a device if it has a number as its text.
func (tr *tree) roots() Roots {
	return Roots{
		Sys: filepath.Join(tr.dir, "sys"), Dev: filepath.Join(tr.dir, "dev"), Proc: filepath.Join(tr.dir, "proc"),
		Number: func(path string) (string, error) {
			b, err := os.ReadFile(path)
			if err == nil && !strings.Contains(string(b), ":") {
				err = errors.New("not a block device")
			}
			return string(b), err
		},
	}
}

func (tr *tree) put(path, text string) {
	tr.t.Helper()
	at := filepath.Join(tr.dir, path)
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		tr.t.Fatal(err)
	}
	if err := os.WriteFile(at, []byte(text), 0o644); err != nil {
		tr.t.Fatal(err)
	}
}

func (tr *tree) link(path, to string) {
	tr.t.Helper()
	at := filepath.Join(tr.dir, path)
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		tr.t.Fatal(err)
	}
	if err := os.Symlink(to, at); err != nil {
		tr.t.Fatal(err)
	}
}

// block adds a device at a path below /sys/devices. attrs are lines of "name value"; a name that ends with / is a
// directory, in which value is a name.
func (tr *tree) block(at, number string, bytes int64, attrs ...string) {
	tr.t.Helper()
	name := filepath.Base(at)
	at = "sys/devices/" + at
	tr.put(at+"/dev", number+"\n")
	tr.put(at+"/size", fmt.Sprintf("%d\n", bytes/512))
	for _, a := range attrs {
		key, value, _ := strings.Cut(a, " ")
		if strings.HasSuffix(key, "/") {
			tr.put(at+"/"+key+value, "")
		} else {
			tr.put(at+"/"+key, value+"\n")
		}
	}
	tr.link("sys/class/block/"+name, "../../"+strings.TrimPrefix(at, "sys/"))
	tr.put("dev/"+strings.ReplaceAll(name, "!", "/"), number)
}

const (
	sata   = "pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/block/sda"
	fibre  = "pci0000:80/0000:80:02.0/0000:81:00.0/host1/rport-1:0-%d/target1:0:%d/1:0:%d:0/block/%s"
	usb    = "pci0000:00/0000:00:14.0/usb2/2-%d/2-%d:1.0/host%d/target%d:0:0/%d:0:0:0/block/%s"
	sas    = "pci0000:40/0000:40:01.1/0000:41:00.0/host2/port-2:0/end_device-2:0/target2:0:0/2:0:0:0/block/sdf"
	nvme   = "pci0000:00/0000:00:1d.0/0000:03:00.0/nvme/nvme0/nvme0n1"
	virtio = "pci0000:00/0000:00:05.0/virtio2/block/vda"
)

// everything is a machine that has a device of each kind.
func everything(t *testing.T) *tree {
	tr := newTree(t)
	tr.block(sata, "8:0", 480e9+512, "removable 0", "ro 0", "diskseq 9", "queue/rotational 0", "queue/logical_block_size 512",
		"queue/physical_block_size 4096", "device/model SAMSUNG MZ7L3480", "device/vendor ATA     ", "device/wwid naa.5002538f31234567",
		"device/vpd_pg80 \x00\x80\x00\x14S6ERNX0T123456      ")
	tr.block(sata+"/sda1", "8:1", 512e6, "partition 1", "start 2048")
	tr.block(sata+"/sda2", "8:2", 1e9, "partition 2", "start 1050624", "holders/ md127")
	tr.block(sata+"/sda3", "8:3", 100e9, "partition 3", "start 4194304", "holders/ dm-3")
	tr.block(sata+"/sda4", "8:4", 200e9, "partition 4", "start 8388608")
	tr.block("virtual/block/md127", "9:127", 1e9, "md/level raid1", "md/uuid 0a1b2c3d-0a1b-0a1b-0a1b-0a1b2c3d4e5f", "slaves/ sda2")
	tr.block("virtual/block/dm-3", "253:3", 100e9, "dm/name vg0-root", "dm/uuid LVM-abc", "slaves/ sda3")
	tr.block(nvme, "259:0", 960e9, "wwid eui.0025385b11500d42", "hidden 0", "queue/logical_block_size 512", "diskseq 3",
		"device/model SAMSUNG MZQL2960HCJR", "device/serial S64FNE0R123456      ")
	tr.block("virtual/nvme-subsystem/nvme-subsys1/nvme1n1", "259:1", 4e12, "wwid eui.0025385b11500d43", "device/model Dell PM1735", "device/serial S5")
	tr.block("pci0000:20/0000:20:01.0/0000:21:00.0/nvme/nvme1/nvme1c1n1", "259:2", 4e12, "hidden 1")
	for i, name := range []string{"sdb", "sdc"} {
		tr.block(fmt.Sprintf(fibre, i, i, i, name), fmt.Sprintf("8:%d", 16*(i+1)), 2e12, "holders/ dm-0", "device/model VIRTUAL-DISK", "device/wwid naa.600a098038303053")
	}
	tr.block("virtual/block/dm-0", "253:0", 2e12, "dm/name mpatha", "dm/uuid mpath-3600a098038303053", "slaves/ sdb", "slaves/ sdc", "holders/ dm-1", "queue/logical_block_size 512")
	tr.block("virtual/block/dm-1", "253:1", 1e12, "dm/name mpatha-part1", "dm/uuid part1-mpath-3600a098038303053", "slaves/ dm-0")
	tr.block(fmt.Sprintf(usb, 1, 1, 6, 6, 6, "sdd"), "8:48", 32e9, "removable 1", "device/model Ultra Fit", "device/wwid t10.SanDisk Ultra")
	tr.block(fmt.Sprintf(usb, 2, 2, 7, 7, 7, "sde"), "8:64", 1e12, "removable 0", "device/model Portable SSD")
	tr.block(sas, "8:80", 8e12, "queue/rotational 1", "queue/logical_block_size 4096", "queue/physical_block_size 4096", "device/model ST8000NM", "device/wwid naa.5000c500a1b2c3d4")
	tr.block(virtio, "254:0", 20e9, "serial vol-0123", "ro 1")
	tr.block("pci0000:00/mmc_host/mmc0/mmc0:0001/block/mmcblk0", "179:0", 64e9, "device/name SD64G", "device/serial 0x1234")
	for i, name := range []string{"mmcblk0boot0", "mmcblk0boot1", "mmcblk0rpmb"} {
		tr.block("pci0000:00/mmc_host/mmc0/mmc0:0001/block/mmcblk0/"+name, fmt.Sprint("179:", 8*(i+1)), 4<<20, "removable 0", "force_ro 0", "device/name SD64G")
	}
	tr.block("platform/flash/mtd/mtd0/mtdblock0", "31:0", 16<<20, "removable 0")
	tr.block("virtual/block/ram0", "1:0", 64<<20)
	tr.block("platform/floppy.0/block/fd0", "2:0", 4096, "removable 0")
	tr.block("virtual/block/loop0", "7:0", 1e9, "loop/backing_file /tmp/test/disk.img")
	tr.block("virtual/block/loop1", "7:1", 0)
	tr.block("virtual/block/zram0", "252:0", 4e9)
	tr.block("virtual/block/nbd0", "43:0", 5e9)
	tr.block("pci0000:00/0000:00:17.0/ata2/host3/target3:0:0/3:0:0:0/block/sr0", "11:0", 1073741312, "removable 1")
	tr.block("pci0000:00/0000:00:03.0/cciss!c0d0", "104:0", 146e9, "holders/ ")
	tr.put("proc/self/mountinfo", `22 1 0:21 / /proc rw - proc proc rw
24 1 253:3 / / rw,relatime shared:1 - ext4 /dev/mapper/vg0-root rw
25 24 8:1 / /boot/efi rw - vfat /dev/sda1 rw
26 24 8:1 / /boot/efi rw - vfat /dev/sda1 rw
27 24 0:45 / /srv/a\040b rw master:1 - btrfs /dev/sdf rw
28 24
`)
	tr.put("sys/fs/btrfs/features/x", "")
	tr.put("sys/fs/btrfs/0123-4567/devices/sdf", "")
	tr.put("sys/fs/btrfs/0123-4567/devices/mmcblk0", "")
	tr.put("proc/swaps", "Filename\tType\tSize\n/dev/zram0 partition 1 0\n/srv/a\\040b/swapfile file 2 0\n")
	tr.link("dev/disk/by-id/ata-SAMSUNG_S6ERNX0T123456", "../../sda")
	tr.link("dev/disk/by-path/pci-0000:00:17.0-ata-1", "../../sda")
	tr.link("dev/disk/by-path/pci-0000:00:17.0-ata-1-part4", "../../sda4")
	tr.link("dev/disk/by-id/gone", "../../sdz")
	tr.link("dev/disk/by-id/round", "about")
	tr.link("dev/disk/by-id/about", "round")
	tr.link("dev/mapper/mpatha", "../dm-0")
	tr.link("dev/mapper/vg0-root", "../dm-3")
	tr.put("dev/null", "")
	return tr
}

func (tr *tree) scan() *Machine {
	tr.t.Helper()
	m, err := tr.roots().Scan()
	if err != nil {
		tr.t.Fatal(err)
	}
	return m
}
