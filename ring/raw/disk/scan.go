package disk

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/ring/errkind"
	"github.com/dolly-img/dolly-img/ring/printable"
)

// Roots are the trees in which the devices of a machine are found.
type Roots struct {
	Sys, Dev, Proc string
	// Number returns the number of the block device at a path, as in "8:0", or an error if there is none.
	Number func(path string) (string, error)
	// Loops is a directory of a test: the loop devices over files below it may be written. "" is none.
	Loops string
}

// Host returns the roots of this machine.
func Host() Roots { return Roots{Sys: "/sys", Dev: "/dev", Proc: "/proc", Number: number} }

func number(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return "", err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return "", errors.New("not a block device")
	}
	return fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev)), nil
}

// A Machine has the block devices that a machine had when it was looked at.
type Machine struct {
	// Devices are in the order of their names.
	Devices []*Device
	roots   Roots
}

// Scan looks at all block devices. A device that vanishes meanwhile is left out.
func (r Roots) Scan() (*Machine, error) {
	names, err := os.ReadDir(filepath.Join(r.Sys, "class/block"))
	if err != nil {
		return nil, fmt.Errorf("block devices: %w", err)
	}
	m := &Machine{roots: r}
	for _, name := range names {
		if d := r.read(name.Name()); d != nil {
			m.Devices = append(m.Devices, d)
		}
	}
	slices.SortFunc(m.Devices, func(a, b *Device) int {
		return cmp.Or(cmp.Compare(len(a.family()), len(b.family())), cmp.Compare(a.family(), b.family()), cmp.Compare(a.Partition, b.Partition))
	})
	for _, d := range m.Devices {
		m.inherit(d)
	}
	m.link()
	if err := m.use(); err != nil {
		return nil, err
	}
	return m, nil
}

// family is the name of the whole disk, which sorts partitions behind it.
func (d *Device) family() string { return cmp.Or(d.Parent, d.Name) }

// Named returns the device with a kernel name, as in "sda1", and nil if there is none.
func (m *Machine) Named(name string) *Device {
	for _, d := range m.Devices {
		if d.Name == name {
			return d
		}
	}
	return nil
}

// Numbered returns the device with a number, as in "8:0", and nil if there is none.
func (m *Machine) Numbered(number string) *Device {
	for _, d := range m.Devices {
		if d.Number == number {
			return d
		}
	}
	return nil
}

// At returns the device to which a path below /dev leads.
func (m *Machine) At(path string) (*Device, error) {
	number, err := m.roots.Number(m.roots.dev(path))
	if err != nil {
		return nil, errkind.Errorf("device-path", "%s leads to no block device: %w", path, bare(err))
	}
	if d := m.Numbered(number); d != nil {
		return d, nil
	}
	return nil, errkind.Errorf("device-path", "%s leads to no block device: the kernel has none of number %s", path, number)
}

// dev returns the place of a path below /dev.
func (r Roots) dev(path string) string {
	return filepath.Join(r.Dev, strings.TrimPrefix(path, "/dev"))
}

// bare returns an error without the path that is named beside it.
func bare(err error) error {
	if p := new(fs.PathError); errors.As(err, &p) {
		return p.Err
	}
	return err
}

// node is the directory of a device in sysfs.
type node string

// text returns what the kernel says in a file, and "" if it says nothing.
func (n node) text(file string) string {
	return printable.Line(strings.TrimSpace(strings.ToValidUTF8(string(n.bytes(file)), "\uFFFD")))
}

// mostText is longer than any attribute of the kernel.
const mostText = 4096

func (n node) bytes(file string) []byte {
	f, err := os.OpenFile(filepath.Join(string(n), file), unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	b, _ := io.ReadAll(io.LimitReader(f, mostText))
	return b
}

func (n node) number(file string) int64 {
	i, err := strconv.ParseInt(n.text(file), 10, 64)
	if err != nil || i < 0 {
		return 0
	}
	return i
}

func (n node) has(file string) bool {
	_, err := os.Stat(filepath.Join(string(n), file))
	return err == nil
}

// list returns the names in a directory.
func (n node) list(dir string) (names []string) {
	entries, _ := os.ReadDir(filepath.Join(string(n), dir))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// blockSize is the unit of sizes in sysfs, whatever the sectors of the device are.
const blockSize = 512

// read returns what sysfs says about a device, and nil if it is gone or hidden. The paths of a multipath NVMe are hidden.
func (r Roots) read(name string) *Device {
	real, err := filepath.EvalSymlinks(filepath.Join(r.Sys, "class/block", name))
	if err != nil {
		return nil
	}
	n := node(real)
	d := &Device{
		Name: name, Path: "/dev/" + strings.ReplaceAll(name, "!", "/"), Number: n.text("dev"), Size: n.number("size") * blockSize,
		ReadOnly: n.number("ro") != 0, held: n.list("holders"), made: n.list("slaves"),
	}
	if d.Number == "" || n.number("hidden") != 0 {
		return nil
	}
	whole := n
	if n.has("partition") {
		whole = node(filepath.Dir(real))
		d.Parent, d.Partition, d.Start = filepath.Base(string(whole)), int(n.number("partition")), n.number("start")*blockSize
	}
	d.Removable = whole.number("removable") != 0
	d.Rotational = whole.number("queue/rotational") != 0
	d.LogicalSector, d.PhysicalSector = int(whole.number("queue/logical_block_size")), int(whole.number("queue/physical_block_size"))
	d.DiskSeq = uint64(whole.number("diskseq"))
	d.Model = cmp.Or(whole.text("device/model"), whole.text("device/name"))
	d.Serial = cmp.Or(whole.text("device/serial"), whole.text("serial"), pageSerial(whole.bytes("device/vpd_pg80")))
	d.WWN = worldWideName(cmp.Or(whole.text("wwid"), whole.text("device/wwid")))
	d.Bus = busOf(strings.TrimPrefix(string(whole), r.Sys))
	d.MapName, d.Backing = n.text("dm/name"), whole.text("loop/backing_file")
	d.UUID = cmp.Or(n.text("dm/uuid"), n.text("md/uuid"))
	d.Kind = kindOf(n, d)
	return d
}

// pageSerial reads the page of SCSI's vital product data that has the serial number (SPC-4, section 7.8.15).
func pageSerial(page []byte) string {
	const header = 4
	if len(page) < header || page[1] != 0x80 {
		return ""
	}
	n := int(binary.BigEndian.Uint16(page[2:]))
	text := page[header:min(len(page), header+n)]
	return printable.Line(strings.Trim(strings.ToValidUTF8(string(text), ""), " \x00"))
}

// worldWideName returns a name as lsblk shows it: that of SCSI with 0x, that of NVMe as the kernel has it. A name that a vendor
// made of model and serial number is none.
func worldWideName(id string) string {
	if hex, ok := strings.CutPrefix(id, "naa."); ok {
		return "0x" + hex
	}
	if strings.HasPrefix(id, "t10.") {
		return ""
	}
	return id
}

// busOf tells how a disk is connected by its path below /sys/devices. What is nearer to the disk counts more: a USB adapter is
// on PCI, and shows a SATA disk as SCSI.
func busOf(path string) string {
	parts := strings.Split(path, "/")
	for _, b := range []struct{ part, bus string }{
		{"usb", "usb"}, {"ata", "sata"}, {"nvme", "nvme"}, {"end_device-", "sas"}, {"rport-", "fc"}, {"session", "iscsi"},
		{"virtio", "virtio"}, {"mmc", "mmc"}, {"vmbus", "hyperv"}, {"vbd-", "xen"}, {"host", "scsi"},
	} {
		for _, p := range parts {
			rest, ok := strings.CutPrefix(p, b.part)
			if ok && (strings.HasSuffix(b.part, "-") || rest == "" || strings.Trim(rest, "0123456789") == "" || b.part == "mmc" || b.part == "nvme" || b.part == "vmbus") {
				return b.bus
			}
		}
	}
	return ""
}

// firmware matches the names of the parts of an eMMC that are disks of their own, and have no data, and of flash memory
// (drivers/mmc/core/block.c and drivers/mtd/mtd_blkdevs.c in the kernel).
var firmware = regexp.MustCompile(`^(mmcblk\d+(boot\d+|rpmb)|(mtdblock|mtdblock_ro|ubiblock)\d+(_\d+)?)$`)

// kindOf tells what a device is.
func kindOf(n node, d *Device) Kind {
	switch {
	case d.Partition > 0:
		return Partition
	case firmware.MatchString(d.Name):
		return Firmware
	case n.has("dm") && strings.HasPrefix(d.UUID, "mpath-"):
		return Multipath
	case n.has("dm"):
		part, rest, _ := strings.Cut(d.UUID, "-")
		if strings.HasPrefix(part, "part") && strings.HasPrefix(rest, "mpath-") && len(d.made) == 1 {
			d.Parent = d.made[0]
			d.Partition, _ = strconv.Atoi(strings.TrimPrefix(part, "part"))
			return Partition
		}
		return Mapped
	case n.has("md"):
		return Raid
	}
	for _, k := range []struct {
		prefix string
		kind   Kind
	}{{"loop", Loop}, {"zram", Memory}, {"ram", Memory}, {"sr", Optical}, {"fd", Floppy}} {
		if rest, ok := strings.CutPrefix(d.Name, k.prefix); ok && strings.Trim(rest, "0123456789") == "" {
			return k.kind
		}
	}
	if d.Bus == "" && strings.Contains(string(n), "/devices/virtual/") {
		return Virtual
	}
	return Disk
}

// inherit gives the device of several paths what is known of the paths, and its partitions what is known of it.
func (m *Machine) inherit(d *Device) {
	var from *Device
	switch {
	case d.Kind == Multipath && len(d.made) > 0:
		from = m.Named(d.made[0])
	case d.Kind == Partition && d.MapName != "":
		from = m.Named(d.Parent)
		if from != nil {
			m.inherit(from)
		}
	}
	if from != nil {
		d.Model, d.Serial, d.WWN, d.Bus = from.Model, from.Serial, from.WWN, from.Bus
	}
}

// link notes the links that udev and others made to each device.
func (m *Machine) link() {
	var dirs []string
	for _, pattern := range []string{"disk/by-*", "mapper", "md"} {
		found, _ := filepath.Glob(filepath.Join(m.roots.Dev, pattern))
		dirs = append(dirs, found...)
	}
	for _, dir := range dirs {
		for _, name := range node(dir).list("") {
			at := filepath.Join(dir, name)
			number, err := m.roots.Number(at)
			if err != nil {
				continue // it leads nowhere, or in a circle
			}
			if d := m.Numbered(number); d != nil {
				d.Links = append(d.Links, "/dev"+strings.TrimPrefix(at, strings.TrimSuffix(m.roots.Dev, "/")))
			}
		}
	}
}
