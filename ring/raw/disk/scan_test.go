package disk

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/dolly-img/dolly-img/ring/errkind"
	"github.com/dolly-img/dolly-img/ring/identity"
	"github.com/dolly-img/dolly-img/test/loopdev"
)

func TestScan(t *testing.T) {
	m := everything(t).scan()
	facts := func(name string) string {
		d := m.Named(name)
		if d == nil {
			return "none"
		}
		text := fmt.Sprintf("%s %s %s %q %q %q %d/%d", d.Path, d.Kind, d.Bus, d.Model, d.Serial, d.WWN, d.LogicalSector, d.PhysicalSector)
		for _, f := range []struct {
			is   bool
			text string
		}{{d.Rotational, "rotational"}, {d.ReadOnly, "read-only"}, {d.Removable, "removable"}} {
			if f.is {
				text += " " + f.text
			}
		}
		return text
	}
	for name, want := range map[string]string{
		"sda":          `/dev/sda disk sata "SAMSUNG MZ7L3480" "S6ERNX0T123456" "0x5002538f31234567" 512/4096`,
		"sda4":         `/dev/sda4 partition sata "SAMSUNG MZ7L3480" "S6ERNX0T123456" "0x5002538f31234567" 512/4096`,
		"nvme0n1":      `/dev/nvme0n1 disk nvme "SAMSUNG MZQL2960HCJR" "S64FNE0R123456" "eui.0025385b11500d42" 512/0`,
		"nvme1n1":      `/dev/nvme1n1 disk nvme "Dell PM1735" "S5" "eui.0025385b11500d43" 0/0`,
		"nvme1c1n1":    "none",
		"sdb":          `/dev/sdb disk fc "VIRTUAL-DISK" "" "0x600a098038303053" 0/0`,
		"dm-0":         `/dev/dm-0 multipath fc "VIRTUAL-DISK" "" "0x600a098038303053" 512/0`,
		"dm-1":         `/dev/dm-1 partition fc "VIRTUAL-DISK" "" "0x600a098038303053" 0/0`,
		"dm-3":         `/dev/dm-3 dm  "" "" "" 0/0`,
		"md127":        `/dev/md127 md  "" "" "" 0/0`,
		"sdd":          `/dev/sdd disk usb "Ultra Fit" "" "" 0/0 removable`,
		"sde":          `/dev/sde disk usb "Portable SSD" "" "" 0/0`,
		"sdf":          `/dev/sdf disk sas "ST8000NM" "" "0x5000c500a1b2c3d4" 4096/4096 rotational`,
		"vda":          `/dev/vda disk virtio "" "vol-0123" "" 0/0 read-only`,
		"mmcblk0":      `/dev/mmcblk0 disk mmc "SD64G" "0x1234" "" 0/0`,
		"loop0":        `/dev/loop0 loop  "" "" "" 0/0`,
		"zram0":        `/dev/zram0 memory  "" "" "" 0/0`,
		"nbd0":         `/dev/nbd0 virtual  "" "" "" 0/0`,
		"sr0":          `/dev/sr0 optical sata "" "" "" 0/0 removable`,
		"mmcblk0boot0": `/dev/mmcblk0boot0 firmware mmc "SD64G" "" "" 0/0`,
		"mmcblk0rpmb":  `/dev/mmcblk0rpmb firmware mmc "SD64G" "" "" 0/0`,
		"mtdblock0":    `/dev/mtdblock0 firmware  "" "" "" 0/0`,
		"ram0":         `/dev/ram0 memory  "" "" "" 0/0`,
		"fd0":          `/dev/fd0 floppy  "" "" "" 0/0`,
		"cciss!c0d0":   `/dev/cciss/c0d0 disk  "" "" "" 0/0`,
	} {
		if got := facts(name); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
	sda4 := m.Named("sda4")
	if sda4.Partition != 4 || sda4.Parent != "sda" || sda4.Start != 8388608*512 || sda4.Size != 200e9 || sda4.DiskSeq != 9 || sda4.Number != "8:4" {
		t.Errorf("%+v", sda4)
	}
	if d := m.Named("dm-1"); d.Parent != "dm-0" || d.Partition != 1 {
		t.Errorf("a partition of a multipath device: %+v", d)
	}
	for name, want := range map[string]string{
		"sda":  "mounted at /boot/efi on sda1, md127 on sda2, dm-3 vg0-root on sda3",
		"sda2": "md127", "sda4": "", "nvme0n1": "", "sdb": "dm-0 mpatha", "dm-0": "dm-1 mpatha-part1",
		"dm-3": "mounted at /", "zram0": "swap", "sdf": "mounted at /srv/a b, swap in /srv/a b/swapfile",
		"mmcblk0": "mounted at /srv/a b, swap in /srv/a b/swapfile",
	} {
		if got := m.Named(name).Busy(); got != want {
			t.Errorf("%s: busy: %q, want %q", name, got, want)
		}
	}
	for name, want := range map[string][]string{"sda": {"root", "boot"}, "sda3": {"root"}, "sda4": nil, "sdf": {"swap"}, "dm-3": {"root"}, "zram0": {"swap"}} {
		if got := m.Named(name).System; !slices.Equal(got, want) {
			t.Errorf("%s: has %q of the system, want %q", name, got, want)
		}
	}
	if got, want := m.Named("sda").Links, []string{"/dev/disk/by-id/ata-SAMSUNG_S6ERNX0T123456", "/dev/disk/by-path/pci-0000:00:17.0-ata-1"}; !slices.Equal(got, want) {
		t.Errorf("links: got %q, want %q", got, want)
	}
}

// The paths of one disk are that disk, whichever rule means them.
func TestChoose(t *testing.T) {
	tr := everything(t)
	m := tr.scan()
	for _, tt := range []struct {
		rule identity.Device
		pick string
		err  string
		kind errkind.Kind
	}{
		{identity.Device{Model: "SAMSUNG MZ*", Bus: "nvme", Size: identity.Sizes{Least: 900e9, Most: 1e12}}, "nvme0n1", "", ""},
		{identity.Device{Serial: "S64FNE0R123456"}, "nvme0n1", "", ""},
		{identity.Device{WWN: "0x0025385B11500D42"}, "nvme0n1", "", ""},
		{identity.Device{Model: "VIRTUAL-DIS?"}, "dm-0", "/dev/dm-0 is busy: dm-1 mpatha-part1", "device-held"},
		{identity.Device{Path: "/dev/sdc"}, "dm-0", "/dev/dm-0 is busy: dm-1 mpatha-part1", "device-held"},
		{identity.Device{Path: "/dev/mapper/mpatha"}, "dm-0", "/dev/dm-0 is busy: dm-1 mpatha-part1", "device-held"},
		{identity.Device{Path: "/dev/disk/by-path/pci-0000:00:17.0-ata-1-part4"}, "sda4", "", ""},
		{identity.Device{Path: "/dev/disk/by-path/pci-0000:00:17.0-ata-1"}, "", "/dev/sda: has root and boot of this system on it", "device-other"},
		{identity.Device{Path: "/dev/sda4", Model: "WDC*"}, "", `/dev/sda4: has model "SAMSUNG MZ7L3480", wanted is "WDC*"`, "device-other"},
		{identity.Device{Path: "/dev/sda2"}, "sda2", "/dev/sda2 is busy: md127", "device-md"},
		{identity.Device{Path: "/dev/nvme0n1"}, "nvme0n1", "", ""},
		{identity.Device{Path: "/dev/vda"}, "vda", "/dev/vda is read-only", "device-readonly"},
		{identity.Device{Path: "/dev/nbd0"}, "nbd0", "", ""},
		{identity.Device{Path: "/dev/loop0"}, "", "/dev/loop0: is a loop device", "device-other"},
		{identity.Device{Path: "/dev/mmcblk0boot0"}, "", "/dev/mmcblk0boot0: is for firmware", "device-other"},
		{identity.Device{Path: "/dev/mmcblk0boot1"}, "", "/dev/mmcblk0boot1: is for firmware", "device-other"},
		{identity.Device{Path: "/dev/mmcblk0rpmb"}, "", "/dev/mmcblk0rpmb: is for firmware", "device-other"},
		{identity.Device{Path: "/dev/mtdblock0"}, "", "/dev/mtdblock0: is for firmware", "device-other"},
		{identity.Device{Path: "/dev/ram0"}, "", "/dev/ram0: is in memory", "device-other"},
		{identity.Device{Path: "/dev/fd0"}, "", "/dev/fd0: is a drive for media", "device-other"},
		{identity.Device{Size: identity.Sizes{Least: 1, Most: 100e6}}, "", "no disk fits: ", "device-none"}, // none of these small ones
		{identity.Device{Bus: "mmc", Size: identity.Sizes{Least: 1, Most: 10e6}}, "", "no disk fits: ", "device-none"},
		{identity.Device{Path: "/dev/zram0"}, "", "/dev/zram0: is in memory", "device-other"},
		{identity.Device{Path: "/dev/sdd"}, "", "/dev/sdd: is removable", "device-other"},
		{identity.Device{Path: "/dev/sr0"}, "", "/dev/sr0: is a drive for media", "device-other"},
		{identity.Device{Path: "/dev/null"}, "", "/dev/null leads to no block device: not a block device", "device-path"},
		{identity.Device{Path: "/dev/disk/by-id/gone"}, "", "/dev/disk/by-id/gone leads to no block device: no such file or directory", "device-path"},
		{identity.Device{Path: "/dev/disk/by-id/round"}, "", "/dev/disk/by-id/round leads to no block device: too many levels of symbolic links", "device-path"},
		{identity.Device{Bus: "usb"}, "sde", "", ""},
		{identity.Device{Bus: "nvme"}, "", "2 disks fit: /dev/nvme0n1, /dev/nvme1n1", "device-several"},
		{identity.Device{Bus: "sas"}, "", "no disk fits: ", "device-none"},
		{identity.Device{Size: identity.Sizes{Least: 900e9, Most: 1e12}}, "nvme0n1", "", ""}, // not the one on USB
	} {
		c := m.Choose(tt.rule)
		switch {
		case (c.Device == nil) != (tt.pick == "") || c.Device != nil && c.Device.Name != tt.pick:
			t.Errorf("%+v: picks %+v, want %s", tt.rule, c.Device, tt.pick)
		case tt.err == "" && c.Err != nil, tt.err != "" && (c.Err == nil || !strings.HasPrefix(c.Err.Error(), tt.err)):
			t.Errorf("%+v: %v, want %s", tt.rule, c.Err, tt.err)
		}
		if kind, _ := errkind.Of(c.Err); kind != tt.kind {
			t.Errorf("%+v: kind %q, want %q", tt.rule, kind, tt.kind)
		}
	}
	roots := tr.roots()
	for dir, pick := range map[string]bool{"/tmp/test": true, "/tmp/test/": true, "/tmp/tes": false, "/tmp/test/disk.img": false} {
		roots.Loops = dir
		m, err := roots.Scan()
		if err != nil {
			t.Fatal(err)
		}
		if c := m.Choose(identity.Device{Path: "/dev/loop0"}); (c.Device != nil) != pick {
			t.Errorf("loop devices below %s: picks %+v, %v", dir, c.Device, c.Err)
		}
	}
}

// A device that vanishes while it is looked at is left out, wherever it is cut off, and garbage is no reason to fail.
func TestScanOfGarbage(t *testing.T) {
	tr := everything(t)
	whole := len(tr.scan().Devices)
	if err := os.Remove(filepath.Join(tr.dir, "sys/devices", nvme, "dev")); err != nil {
		t.Fatal(err)
	}
	tr.link("sys/class/block/sdx", "../../devices/gone")
	tr.link("sys/class/block/sdy", "sdy")
	m := tr.scan()
	if m.Named("nvme0n1") != nil || len(m.Devices) != whole-1 {
		t.Errorf("got %d devices of %d", len(m.Devices), whole)
	}
	tr.put("sys/devices/"+sata+"/size", "-5\n")
	tr.put("sys/devices/"+sata+"/sda1/partition", "x\n")
	tr.put("sys/devices/"+sata+"/device/vpd_pg80", "\x00\x80\xff\xff")
	tr.put("sys/devices/"+sata+"/device/model", "\x1b[2Jmodel\xff")
	tr.put("proc/self/mountinfo", "\\\n - \n1 2 8:0 / /a\\04 - x\n1 2 8:0 / /a\\999b\\040 rw - x /dev/sda\n")
	m = tr.scan()
	if d := m.Named("sda"); d.Size != 0 || d.Serial != "" || d.Model != `\x1b[2Jmodel`+`\ufffd` || m.Never(d) != "has no medium" {
		t.Errorf("%+v", d)
	}
	empty := newTree(t)
	if m := empty.scan(); len(m.Devices) != 0 || m.Choose(identity.Device{Bus: "sata"}).Err.Error() != "no disk fits: there is no disk" {
		t.Errorf("%+v", m.Devices)
	}
}

// The devices of the machine that runs the test are those that lsblk lists.
func TestScanAsLsblk(t *testing.T) {
	loopdev.Need(t, "lsblk")
	out, err := exec.Command("lsblk", "--all", "--bytes", "--list", "--noheadings", "--output", "NAME,MAJ:MIN,SIZE,RO,RM,LOG-SEC,PHY-SEC").Output()
	if err != nil {
		t.Fatal(err)
	}
	m, err := Host().Scan()
	if err != nil {
		t.Fatal(err)
	}
	compared := 0
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		d := m.Named(f[0])
		if d == nil || strings.HasPrefix(f[0], "loop") || len(f) != 7 { // other tests make and remove these
			continue
		}
		one := map[bool]string{true: "1", false: "0"}
		got := []string{d.Name, d.Number, fmt.Sprint(d.Size), one[d.ReadOnly], one[d.Removable], fmt.Sprint(d.LogicalSector), fmt.Sprint(d.PhysicalSector)}
		if !reflect.DeepEqual(got, f) {
			t.Errorf("got %q, lsblk says %q", got, f)
		}
		compared++
	}
	if compared == 0 {
		t.Skip("no device but loop devices")
	}
}

// A partition of a path is that partition of the multipath device, and never the whole of it.
func TestChoosePartitionOfPath(t *testing.T) {
	tr := everything(t)
	for i, name := range []string{"sdb1", "sdb2"} {
		tr.block(fmt.Sprintf(fibre, 0, 0, 0, "sdb/"+name), fmt.Sprintf("8:%d", 17+i), 1e12, fmt.Sprint("partition ", i+1), "start 2048")
	}
	if err := os.Remove(filepath.Join(tr.dir, "sys/devices/virtual/block/dm-0/holders/dm-1")); err != nil { // nothing keeps it from being written
		t.Fatal(err)
	}
	m := tr.scan()
	if c := m.Choose(identity.Device{Path: "/dev/sdb1"}); c.Device == nil || c.Device.Name != "dm-1" || c.Err != nil {
		t.Errorf("picks %+v, %v", c.Device, c.Err)
	}
	c := m.Choose(identity.Device{Path: "/dev/sdb2"})
	if kind, _ := errkind.Of(c.Err); c.Device != nil || kind != "device-other" || !strings.Contains(c.Err.Error(), "/dev/sdb2: is a path of dm-0 mpatha") {
		t.Errorf("picks %+v, %v", c.Device, c.Err)
	}
}

// A rule with a path that the kernel made up warns of it, and says which one lasts, unless it cannot mean another device.
func TestPathThatWanders(t *testing.T) {
	tr := everything(t)
	tr.link("dev/disk/by-id/dm-uuid-mpath-3600a098038303053", "../../dm-0")
	tr.link("dev/md/home", "../md127")
	m := tr.scan()
	for _, tt := range []struct {
		rule identity.Device
		want string // "" is no warning
	}{
		{identity.Device{Path: "/dev/sda"}, `"/dev/disk/by-path/pci-0000:00:17.0-ata-1" leads to this one`},
		{identity.Device{Path: "/dev/sda4"}, `"/dev/disk/by-path/pci-0000:00:17.0-ata-1-part4" leads to this one`},
		{identity.Device{Path: "/dev/sdc"}, `"/dev/disk/by-id/dm-uuid-mpath-3600a098038303053" leads to this one`}, // a path of it
		{identity.Device{Path: "/dev/dm-3"}, `"/dev/mapper/vg0-root" leads to this one`},
		{identity.Device{Path: "/dev/md127"}, `"/dev/md/home" leads to this one`},
		{identity.Device{Path: "/dev/nvme0n1", Model: "SAMSUNG*"}, "a serial or wwn beside it"},
		{identity.Device{Path: "/dev/nvme0n1", Serial: "S64FNE0R123456"}, ""},
		{identity.Device{Path: "/dev/disk/by-path/pci-0000:00:17.0-ata-1"}, ""},
		{identity.Device{Path: "/dev/mapper/mpatha"}, ""},
		{identity.Device{Path: "/dev/loop0"}, ""},
		{identity.Device{Bus: "usb"}, ""},
	} {
		c := m.Choose(tt.rule)
		if (c.Warning == "") != (tt.want == "") || !strings.Contains(c.Warning, tt.want) || tt.want != "" && !strings.HasPrefix(c.Warning, fmt.Sprintf("path = %q may lead", tt.rule.Path)) {
			t.Errorf("%+v: %q, want %q", tt.rule, c.Warning, tt.want)
		}
	}
}
