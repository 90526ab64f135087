// Package tree moves directories with all that is in them, as one stream of bytes.
//
//	server   Open(dir, options)     a directory as a ring.Source of one blob
//	node     NewTarget(options)     a ring.Sink of that blob, which puts the directory in place as a whole
//
// # The stream
//
// It is a tar archive in the PAX interchange format (POSIX.1-2001, pax), which every tar of today unpacks. A tree that
// did not change makes the same bytes each time, on every machine:
//
//	┌───────────────┬──────────────┬───────────────┬───────────────┐
//	│ header 'x'    │ PAX records, │ header of the │ bytes of a    │   for each entry
//	│ 512 bytes     │ zeros to 512 │ entry, 512    │ file, zeros   │
//	└───────────────┴──────────────┴───────────────┴───────────────┘
//	┌───────────────────────────────┐
//	│ 1024 zeros                    │                                 once, at the end, and nothing behind them
//	└───────────────────────────────┘
//
// Entries come in this order: a directory, then what is in it, sorted by the bytes of the names, each directory there with all
// that is in it. The first entry is the top directory itself, "./". Other names are relative to it and have no dots.
//
// The records of an entry are sorted by their keys. Numbers are decimal.
//
//	SCHILY.xattr.NAME   an extended attribute, its bytes as they are; ACLs are system.posix_acl_access and _default
//	gid, uid            where the header has no room for them
//	linkpath            the target of a symbolic link as it is, or of a hard link the name of an entry before it
//	mtime               seconds, with nine digits of a fraction unless that is 0
//	path                the name; that of a directory ends with a slash
//	size                where the header has no room for it, from 8 GiB on
//
// Types are '0' file, '1' hard link, '2' symbolic link, '5' directory, and with Options.Special '3' and '4' device and '6'
// named pipe. A hard link has mode, owner and times 0: they are those of the first name. The header's own name is the path,
// cut off after 100 bytes. Owners are numbers below 4294967295, since their names may differ between machines. A node encodes again what it has read of an entry, and refuses the stream unless the bytes are
// the same. So a node can make the stream again from what it has unpacked.
//
// Holes of sparse files are zeros in the stream. With 64 MiB of them or more it travels in leaves, in which long runs of zeros
// cost nothing on the way. A node makes holes where whole pages of a file, 4 KiB from a multiple of 4 KiB on, come as zeros.
//
// # Limits
//
// A name has at most 255 bytes, a path 4095, and directories are nested at most 200 deep. The records of an entry have at
// most 1 MiB. A server keeps about 300 bytes of memory for each entry, a node none.
//
// # Reading
//
// The tree is walked once before, which gives the length of the stream. A file is opened by its name through no link at the
// last step, and has to be the one that was found there, by its inode, size and times, before and after it is read. At the
// end the tree is walked again. Anything that was changed by then is an error, and nothing is committed: nodes get what
// stood there at one moment.
//
// # Unpacking
//
// Each directory is made and then opened by its name in the one above, and what is in it is made by its name in the open
// directory. No name has a slash, so no name and no link leads out. A name must not exist yet. Only the bytes that a mark of
// the ring has shown to be right are unpacked, so that nothing has to be taken back.
//
// What the file system says of each entry, when that is complete, goes into a sum. A later transfer of the same stream walks
// the directory, and holds it if the sum is still the same.
//
// # In place
//
// With TargetOptions.InPlace Publish does not exchange the new directory with the one that is there, but renames what is in it
// into that one, name by name, and gives the directories that both have the attributes of the new ones. It removes nothing but the
// access control lists of such directories, where the new ones have none.
// Commit refuses what could not be renamed: a file in the place of a directory, or the other way round, and what is on another
// file system. If Publish breaks off after that, the directory is partly the new one, and its error says so.
//
// # Durability
//
// Everything is made durable with syncfs(2), since an fsync of each file costs many times as much: while the stream comes,
// each 128 MiB of it, and once more at its end. No more than 256 MiB wait for that, so a node whose storage is slow does not
// fall silent at the end, and reports what storage has taken by then. Before Linux 5.8 syncfs reports no errors of writing: with
// such a kernel a node can take a directory for durable of which a disk that fails has lost bytes. A disk is written to from
// 8 MiB of a file on while that comes.
package tree
