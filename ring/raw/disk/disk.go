// Package disk finds the block devices of a machine, and says of each what it is, what uses it, what it holds, and
// whether a rule of the policy means it. It only reads.
//
// Facts are from sysfs (the kernel's Documentation/ABI, files sysfs-block and sysfs-class-block among others), from
// /proc/self/mountinfo and /proc/swaps, and from the links that udev makes below /dev/disk. The roots of these trees are
// parameters, so that tests can use trees of files.
package disk

import (
	"strings"
)

// HalfWritten stands at HalfWrittenAt, or at the first byte, or at both, of a device that dolly-img has begun to overwrite and
// has not finished.
const HalfWritten = "dolly-img half\x00\x01"

// HalfWrittenAt is the offset of HalfWritten in bytes.
const HalfWrittenAt = 512 << 10

// Kind is what a block device is.
type Kind string

// The kinds of block devices.
const (
	Disk      Kind = "disk"
	Partition Kind = "partition"
	Multipath Kind = "multipath" // one disk that is reached by several paths
	Mapped    Kind = "dm"        // another device of the device mapper: LVM, dm-crypt
	Raid      Kind = "md"
	Loop      Kind = "loop"
	Memory    Kind = "memory" // zram, ram
	Optical   Kind = "optical"
	Floppy    Kind = "floppy"
	Firmware  Kind = "firmware" // boot partitions and RPMB of an eMMC, MTD
	Virtual   Kind = "virtual"  // what the kernel makes in another way, such as nbd
)

// A Device is what is known of one block device.
type Device struct {
	// Name is the kernel's, as in "nvme0n1p2", Path that below /dev. Links are other paths that lead there.
	Name  string   `json:"name"`
	Path  string   `json:"path"`
	Links []string `json:"links,omitempty"`
	Kind  Kind     `json:"kind"`
	// Bus is nvme, sata, sas, scsi, usb, virtio, mmc, fc, iscsi, hyperv, xen, or "" if that is not known.
	Bus    string `json:"bus,omitempty"`
	Model  string `json:"model,omitempty"`
	Serial string `json:"serial,omitempty"`
	// WWN is the world wide name as lsblk shows it.
	WWN string `json:"wwn,omitempty"`
	// Size and the sizes of sectors are in bytes.
	Size           int64 `json:"size"`
	LogicalSector  int   `json:"logicalSector,omitempty"`
	PhysicalSector int   `json:"physicalSector,omitempty"`
	Rotational     bool  `json:"rotational,omitempty"`
	ReadOnly       bool  `json:"readOnly,omitempty"`
	Removable      bool  `json:"removable,omitempty"`
	// Number is major and minor number, as in "8:0". DiskSeq never comes twice before the next boot; 0 is unknown.
	Number  string `json:"number"`
	DiskSeq uint64 `json:"diskSeq,omitempty"`
	// Partition is the number of a partition, Parent the name of its disk, and Start where it begins there in bytes.
	Partition int    `json:"partition,omitempty"`
	Parent    string `json:"parent,omitempty"`
	Start     int64  `json:"start,omitempty"`
	// MapName is the name that the device mapper has for it, UUID what the device mapper or MD tells it from others by.
	MapName string `json:"mapName,omitempty"`
	UUID    string `json:"uuid,omitempty"`
	// Backing is the file of a loop device.
	Backing string `json:"backing,omitempty"`
	// Users are what uses the device or a partition of it.
	Users []User `json:"users,omitempty"`
	// System has "root", "boot" and "swap" if these are on the device, however many layers are between.
	System []string `json:"system,omitempty"`

	held, made []string // the devices that are made of it, and of which it is made
}

// A User is something that uses a device.
type User struct {
	// What is as in "mounted at /boot", "swap", "md127" or "dm-3 vg0-root".
	What string `json:"what"`
	// On is the device, or the partition of it, that is used.
	On string `json:"on"`
	// ReadOnly says that it is a file system to which nothing can be written, at whatever place it is mounted.
	ReadOnly bool `json:"readOnly,omitempty"`
}

// Busy says what uses a device, as in "md127 on sda2", and is "" if nothing does.
func (d *Device) Busy() string {
	var texts []string
	for _, u := range d.Users {
		if u.On != d.Name {
			u.What += " on " + u.On
		}
		texts = append(texts, u.What)
	}
	return strings.Join(texts, ", ")
}
