// Package raw holds the sources and sinks that know no image format: a regular
// file, a block device, a standard stream, and the file a node writes. (The way of a byte from a socket to
// such a file is package ring/internal/relay.)
//
//	server   OpenFile(path)      a regular file, Size known
//	         OpenDevice(path)    a block device, which nothing may write to meanwhile
//	         Stream(r, dir)      standard input, Size -1, spooled while it is read
//	node     NewTarget(options)  one file, atomically replaced on Publish
//	         Discard             verifies only (the ring does), keeps nothing
//	         Stdout(w)           in order, once, without a way back
//
// A target is written beside its final name:
//
//	DIR/NAME                     what was there before, untouched until Publish
//	DIR/.NAME.dolly-img-part     what is arriving; flocked, ours, one link, mode 0600 or 0700
//	DIR/.dolly-img-part-RANDOM   the same when it is complete, from before it gets its mode until it has the final name
//	DIR/.NAME_.dolly-img-part    empty; locked while somebody writes NAME_0, NAME_1 and so on (Split)
//
// and at every instant the final name is the old file or the complete new one, however long one of the steps takes:
// no other transfer makes anything under the random name. What a killed transfer leaves there goes with the next
// transfer in that directory, or when the daemon starts.
//
// # Other users
//
// A user may own a directory below the permitted one, or may read everything there. He can hurt only what is his:
//
//   - He exchanges directories or links. The path is walked once, through no link, and everything is done in the directory
//     that was opened. The path has to lead there again before and after the rename (parent.go).
//   - He exchanges the output. A record of it is made of the files that were open while their bytes came, and compared
//     with what is opened or looked at through no link (standing.go).
//   - He puts a pipe, a device, a link or a file of his under a name. What is opened must be a regular file or a
//     directory of ours, with one name, and is opened without waiting.
//   - He locks a part. A part can be opened by its owner only until it is complete and set aside, where no transfer waits
//     for its lock (aside.go). One that an older version left open to others is made anew if somebody keeps its lock
//     (left.go).
//   - He takes a lease (fcntl) on a file. The kernel lets him do that with his own files only, an open then fails at once,
//     and a rename does not care.
//
// Whom an output is given to can write to it as soon as it is his, and can keep transfers from it.
package raw
