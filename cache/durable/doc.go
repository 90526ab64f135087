// Package durable is how this project writes files that survive a power loss: the cache and the files of
// package ring/raw are made with it. It knows neither, and imports nothing of the project.
//
// An [FS] is every operation on one directory, whose names are relative to it. [Dir] is one in which
// nobody else writes; [OpenRoot] is one in which others may write, and in which no name and no symbolic
// link leads out. A test gives its own: ring/ringtest/crashfs takes the power away before any operation.
//
// # What is there after a crash
//
// After a power loss at any instant, and in any order that the disk chooses:
//
//   - The bytes of a file are there once [File].Sync has returned. Before that they can be there, be
//     zeros, or be missing, each part of them on its own.
//   - A name is there, or gone, once [FS].SyncDir of the directory that it is in has returned. Sync of a file
//     makes its bytes durable and not its name: the directory is a file of its own. Before SyncDir, a
//     rename can have lost both names or have left both.
//   - Who sees a name that was given by Rename, RenameNew or Exchange sees all bytes only if Sync had
//     returned before. Therefore a file is filled under another name, synced, and then renamed, and at every
//     instant the final name is the old file or the new one ([Replace] does all of that).
//   - What another process holds with [TryLock] is free again when that process ends, however it ends. No lock
//     survives a reboot. So a temporary file whose lock can be taken is one that was left behind.
//
// # When fsync fails
//
// A failed Sync says that bytes are lost, and on Linux it says so once: the kernel marks the pages clean, and the
// next Sync of the same file succeeds with the bytes still missing. Nothing here tries again, and no caller
// may: the file is thrown away, and made anew from its source. It never gets its final name. A failed SyncDir
// comes after the rename, so the new file is in place and only its name may not survive: the caller
// reports the failure and leaves it.
//
// # System calls
//
//	open        openat with O_NOFOLLOW and O_CLOEXEC; each directory on the way in turn for OpenRoot
//	Chtimes     utimensat without a name, on the open file
//	Sync        fsync; for SyncDir of an open directory
//	Rename      renameat; renameat2 with RENAME_NOREPLACE for RenameNew and with RENAME_EXCHANGE for Exchange
//	TryLock     flock, which the end of the process undoes
//	Reserve     fallocate with FALLOC_FL_KEEP_SIZE: a disk that is full is noticed before the first byte arrives
//	Write       pwrite, and sync_file_range with SYNC_FILE_RANGE_WRITE after every 8 MiB: it begins to write and
//	            does not wait, makes nothing durable, and leaves little to do for fsync
//	Flush       sync_file_range of each 8 MiB that waits: fsync of much takes long, and nobody sees how far it is
//	Clone       ioctl FICLONE, a reflink
//	Space       fstatfs, and MemAvailable of /proc/meminfo where the file system lives in memory
package durable
