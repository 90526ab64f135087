// Package raw holds the sources and sinks that know no image format: a regular
// file, a standard stream, and the file a node writes. (The way of a byte from a socket to
// such a file is package ring/internal/relay.)
//
//	server   OpenFile(path)      a regular file, Size known
//	         Stream(r, dir)      standard input, Size -1, spooled while it is read
//	node     NewTarget(options)  one file, atomically replaced on Publish
//	         Discard             verifies only (the ring does), keeps nothing
//	         Stdout(w)           in order, once, without a way back
//
// A target is written beside its final name:
//
//	DIR/NAME                     what was there before, untouched until Publish
//	DIR/.NAME.dolly-img-part     what is arriving; flocked, ours, one link
//
// and at every instant the final name is the old file or the complete new one.
package raw
