// Package device writes one blob to a block device: the sink of a node whose output is a disk or a partition.
//
// A device cannot be the old one or the new one at every instant, as a file can. So a Target makes sure of something less:
// whenever the power may be lost, the device is untouched, or says that it is half-written, or is complete.
//
//	offset      while it is half-written               when it is complete
//	0           mark, zeros                            the image, at last its first 4 KiB
//	512 KiB     mark, journal in two slots             the image
//	1 MiB       nothing to go by                       the image
//	4 MiB       leaves as they come                    the image
//	last leaf   nothing to go by, kept in memory       the image, its last sector padded with zeros
//	behind      what was there                         what was there, and a moved backup of the partition table
//	last MiB    zeros                                  zeros where the image does not reach, or that backup
//
// # The order of writes
//
//  1. Nothing is written before the first leaf was compared with the server's sum (ring.Cautious).
//  2. The mark (package disk, HalfWritten) is written to the first sector, and flushed. It is the first thing that is written
//     to a device, and the last that goes.
//  3. The first and the last MiB become zeros: partition tables with their backups, and the superblocks of file systems, of
//     LVM and of MD are in these. The mark is repeated where the journal will be. They are flushed.
//  4. Leaves are written as they come. Now and then the device is flushed, and the journal then names the leaves that are
//     good. A torn slot of the journal is seen by its sum, and the other one counts.
//  5. Publish writes the last leaf, what the caller patches in, and the first leaf without the pages in which file systems
//     and tables have their signatures, and flushes. Then come these pages, and another flush. Then comes the first sector,
//     and a last flush. All of it is read back and compared.
//
// The first and the last leaf stay in memory until Publish, are replayed from there and never named by the journal. So what
// is half-written has neither the beginning nor the end of the image.
//
// What the journal names is a claim as any other: the ring compares it with the server's sums.
package device
