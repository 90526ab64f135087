// Package expand reads images of disks that are stored in fewer bytes than they have, and is their source: compressed with
// gzip, zstd, xz or bzip2, described by a block map (bmap), or both. Nodes get the bytes of the image, and know nothing
// of how the server stores it.
//
//	Detect(r, size)            what a file holds, told by its bytes, and refuses images of other programs
//	Open(ctx, file, options)   the image in a file as a source of one blob
//
// # The length
//
// is known before anything is offered to a node, because a node has to refuse an image that its target is too small for.
// A block map says it; an xz file has an index at its end; the frames of a zstd file may all say how long they are. What
// gzip and bzip2 have been given, and a stream of zstd, is expanded once to be measured. The lengths of xz and zstd are
// read here and not by the libraries that expand, which begin at the front of a file only.
//
// # What is wrong is not committed
//
// A reader gives io.EOF only when all checksums were right, nothing but padding is behind the end, and the length is what
// was offered. An error about the bytes has a method Wrong() bool that returns true: then nodes do not keep what
// came before, since a checksum is known to be wrong at its end only.
//
// # Memory
//
// is bounded for every input: a window is at most 128 MiB, which is what zstd and xz demand by default at most (xz -9
// takes 64 MiB), and what is in an index is read one after the other and not kept. Each reader expands for itself. A
// replay has to expand all that is before its bytes, and one does so at a time.
package expand
