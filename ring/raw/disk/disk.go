// Package disk finds the block devices of a machine, and says of each what it is, what uses it, what it holds, and
// whether a rule of the policy means it. It only reads.
//
// Facts are from sysfs (the kernel's Documentation/ABI, files sysfs-block and sysfs-class-block among others), from
// /proc/self/mountinfo and /proc/swaps, and from the links that udev makes below /dev/disk. The roots of these trees are
// parameters, so that tests can use trees of files.
package disk

// HalfWritten stands at HalfWrittenAt of a device that dolly-img has begun to overwrite and has not finished.
const HalfWritten = "dolly-img half\x00\x01"

// HalfWrittenAt is the offset of HalfWritten in bytes.
const HalfWrittenAt = 512 << 10
