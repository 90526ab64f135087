package meta

import (
	"errors"
	"fmt"

	"github.com/dolly-img/dolly-img/ring/errkind"
	"github.com/dolly-img/dolly-img/ring/identity"
	"github.com/dolly-img/dolly-img/ring/raw/disk"
	"github.com/dolly-img/dolly-img/ring/raw/gpt"
)

// Kinds of what is sent to a device.
const (
	HoldsDisk       = "disk"       // a disk with a partition table
	HoldsFileSystem = "filesystem" // what a partition holds
)

// Device says what comes to a device, which Output names.
type Device struct {
	// Holds is what the source is an image of: HoldsDisk, HoldsFileSystem, or "" where that is not known.
	Holds string `json:"holds,omitempty"`
	// Sectors are what in the source depends on the size of a logical sector.
	Sectors []Sectors `json:"sectors,omitempty"`
	// AnyKind allows a disk to come to a partition, and what a partition holds to a disk.
	AnyKind bool `json:"anyKind,omitempty"`
	// KeepTable leaves a GPT on a larger disk as it is in the source.
	KeepTable bool `json:"keepTable,omitempty"`
	// Unread says that the node does not read back what it wrote.
	Unread bool `json:"unread,omitempty"`
}

// Sectors say that What works on disks with sectors of Least to Most bytes only.
type Sectors struct {
	What  string `json:"what"`
	Least int64  `json:"least"`
	Most  int64  `json:"most"`
}

const (
	maxSectors = 8   // entries, of which two are enough to refuse all that has to be refused
	maxWhat    = 200 // bytes
)

// Brings notes what an image is, and what in it depends on the size of a logical sector: of those that work on
// the same sectors the first is enough.
func (d *Device) Brings(kind gpt.Kind, needs []gpt.Need) {
	switch kind {
	case gpt.Disk:
		d.Holds = HoldsDisk
	case gpt.FileSystem:
		d.Holds = HoldsFileSystem
	}
	seen := map[gpt.Need]bool{}
	for _, n := range needs {
		alike := gpt.Need{Min: n.Min, Max: n.Max}
		if !seen[alike] && len(d.Sectors) < maxSectors {
			d.Sectors = append(d.Sectors, Sectors{n.What, n.Min, n.Max})
		}
		seen[alike] = true
	}
}

// Suits returns an error if what comes does not belong on a device, which has logical sectors of sector bytes. It belongs
// on a disk, on a partition, or on either, as on a logical volume or an array.
func (d *Device) Suits(name string, kind disk.Kind, sector int64) error {
	whole := kind == disk.Disk || kind == disk.Multipath || kind == disk.Loop
	switch {
	case d.AnyKind:
	case kind == disk.Partition && d.Holds == HoldsDisk:
		return errkind.About("device-kind", name, "%s is a partition, and what comes is a disk with a partition table", name)
	case whole && d.Holds == HoldsFileSystem:
		return errkind.About("device-kind", name, "%s is a disk, and what comes is what a partition holds, without a partition table", name)
	}
	for _, s := range d.Sectors {
		if sector < s.Least || sector > s.Most {
			return errkind.About("device-sectors", name, "%s has sectors of %d bytes, with which what comes does not work: %s", name, sector, s.What)
		}
	}
	return nil
}

func (m *Transfer) checkDevice() error {
	d := m.Device
	switch {
	case d == nil:
		return nil
	case m.Kind != KindRaw || !identity.IsDevice(m.Output):
		return errors.New("what comes to a device without a device")
	case m.Mode != 0 || m.Owner != "" || m.Mkdir || m.Shared || !m.Mtime.IsZero():
		return errors.New("a device gets no mode, owner or time")
	case d.Holds != "" && d.Holds != HoldsDisk && d.Holds != HoldsFileSystem:
		return fmt.Errorf("unknown kind of image %q", d.Holds)
	case len(d.Sectors) > maxSectors:
		return fmt.Errorf("%d things that depend on sectors, at most %d", len(d.Sectors), maxSectors)
	}
	for _, s := range d.Sectors {
		if s.Least < 0 || s.Least > s.Most || s.What == "" || len(s.What) > maxWhat {
			return fmt.Errorf("sectors of %d to %d bytes for %.200q", s.Least, s.Most, s.What)
		}
	}
	return nil
}
