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
//	tail        nothing to go by, kept in memory       the image, its last sector padded with zeros
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
//  4. Leaves are written as they come. Each 256 MiB or 10 s the device is flushed, and the journal then names the leaves that
//     are good; so it does when the transfer is broken off. A torn slot of the journal is seen by its sum, and the other one
//     counts. There is no journal before the edges are on the medium: who goes on from one does not overwrite them again.
//  5. Publish writes the beginning and the tail without what may have signatures: the pages in which file systems and tables
//     have them, the last MiB of the image, and what the caller patches in behind it, such as the backup of a GPT. It flushes,
//     and the journal is gone. Then comes what was left out, and another flush. Then comes the first sector, and a last
//     flush. All of it is read back and compared.
//
// The first leaf and the tail stay in memory until Publish, are replayed from there and never named by the journal. The tail is
// the leaves that have bytes of the last MiB: the last leaf, and the one before it if the last is shorter. So what is
// half-written has neither the beginning nor the end of the image. (What an older image had at its end stays in place on a larger
// device, where nothing looks for a signature.)
//
// # Updates
//
// An update (ring.Comparer) reads the whole device before it writes anything. The first leaf and the tail are read into memory,
// so that the mark may overwrite them: what is right of them is not brought again unless the node is killed. The first journal
// names all other leaves that are right, and only the wrong ones are written. Where none is, Prepare composes what Publish would
// write, and compares it with the device. If that is the same, too, nothing is written, and there was never a mark.
//
// What the journal names is a claim as any other: the ring compares it with the server's sums.
package device
