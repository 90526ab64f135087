// Package reread has the Linux kernel take notice of the partition table that was written to a disk. Until then it goes on
// with the partitions of the table before, and offers them to whoever mounts.
package reread
