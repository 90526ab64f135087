package durable

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// errNoFD is the error of control for a file without a descriptor. Only files of tests have none.
var errNoFD = errors.New("not a file of the operating system")

// control runs one system call on the descriptor of f.
func control(f any, call func(fd int) error) error {
	conn, ok := f.(syscall.Conn)
	if !ok {
		return errNoFD
	}
	rc, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	cerr := rc.Control(func(fd uintptr) {
		err = retry(func() error { return call(int(fd)) })
	})
	if cerr != nil {
		return cerr
	}
	return err
}

// retry makes a system call again while a signal interrupts it, but not for ever: a large fallocate may
// never get through.
func retry(call func() error) (err error) {
	for range 100 {
		if err = call(); err != unix.EINTR {
			return err
		}
	}
	return err
}

// ErrLocked is the error of TryLock if another process or open file holds the lock.
var ErrLocked error = unix.EWOULDBLOCK

// TryLock takes the exclusive lock of an open file or directory, or fails at once. The lock is of this open file and
// ends with its Close, or with the process.
func TryLock(f File) error {
	err := control(f, func(fd int) error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
	if err == errNoFD {
		return nil
	}
	return err
}

// WaitLock is TryLock that waits for the lock until ctx ends. It is for locks that are held for a moment only.
func WaitLock(ctx context.Context, f File) error {
	err := TryLock(f)
	if !errors.Is(err, ErrLocked) {
		return err
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for errors.Is(err, ErrLocked) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			err = TryLock(f)
		}
	}
	return err
}

// chtimes is futimens, which x/sys does not have: it has only the forms that take a name.
func chtimes(fd int, atime, mtime time.Time) error {
	times := [2]unix.Timespec{}
	for i, at := range []time.Time{atime, mtime} {
		var err error
		if times[i], err = unix.TimeToTimespec(at); err != nil {
			return err
		}
	}
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&times)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// reserve reserves size bytes without changing the length of f. Only a lack of space is an error; where the
// file system cannot, nothing is reserved. It does nothing for a small file, where it costs more than it tells.
func reserve(f File, size int64) error {
	if size < 1<<20 {
		return nil
	}
	err := control(f, func(fd int) error { return unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, 0, size) })
	if err == nil || err == errNoFD {
		return nil
	}
	if noSpace(err) {
		return err // The caller removes the file and what it reserved.
	}
	info, serr := f.Stat()
	if serr != nil {
		return serr
	}
	return f.Truncate(info.Size()) // A fallocate that failed leaves blocks behind.
}

// punch makes a hole of n bytes, without changing the length of f. It fails where the file system makes none.
func punch(f File, off, n int64) error {
	return control(f, func(fd int) error {
		return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	})
}

// noSpace reports whether err means that no more can be written.
func noSpace(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EFBIG)
}

// startWriteback begins to write a range of f to its device and does not wait.
func startWriteback(f File, off, n int64) error {
	return syncRange(f, off, n, unix.SYNC_FILE_RANGE_WRITE)
}

// waitWriteback writes a range of f to its device and waits until the device has it. After an error Sync may not tell of
// it again.
func waitWriteback(f File, off, n int64) error {
	return syncRange(f, off, n, unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER)
}

func syncRange(f File, off, n int64, flags int) error {
	err := control(f, func(fd int) error { return unix.SyncFileRange(fd, off, n, flags) })
	if errors.Is(err, unix.EIO) || noSpace(err) {
		return err
	}
	return nil // It is a hint, which some file systems do not support.
}

// HoldsMore reports whether more than n names are in the directory of fsys. It reads no more of them. For file systems of
// tests it is false.
func HoldsMore(fsys FS, n int) (bool, error) {
	f, err := fsys.OpenFile(".", os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return false, err
	}
	defer f.Close()
	d, ok := f.(interface{ Readdirnames(n int) ([]string, error) })
	if !ok {
		return false, nil
	}
	names, err := d.Readdirnames(n + 1)
	if err == io.EOF {
		err = nil
	}
	return len(names) > n, err
}

// clone makes dst share the blocks of src, where the file system can.
func clone(dst File, src any) error {
	return control(dst, func(to int) error {
		return control(src, func(from int) error { return unix.IoctlFileClone(to, from) })
	})
}

// cloneBehind is clone for what is behind the first off bytes.
func cloneBehind(dst File, src any, off int64) error {
	return control(dst, func(to int) error {
		return control(src, func(from int) error {
			return unix.IoctlFileCloneRange(to, &unix.FileCloneRange{Src_fd: int64(from), Src_offset: uint64(off), Dest_offset: uint64(off)})
		})
	})
}

// networkFS names the file systems that many nodes share, by statfs magic. The
// numbers that x/sys lacks are those the file systems' own sources define.
var networkFS = map[uint32]string{
	unix.NFS_SUPER_MAGIC:   "NFS",
	unix.SMB_SUPER_MAGIC:   "SMB",
	unix.CIFS_SUPER_MAGIC:  "CIFS",
	unix.SMB2_SUPER_MAGIC:  "SMB",
	unix.CEPH_SUPER_MAGIC:  "Ceph",
	unix.AFS_SUPER_MAGIC:   "AFS",
	unix.AFS_FS_MAGIC:      "AFS",
	unix.V9FS_MAGIC:        "9p",
	unix.OCFS2_SUPER_MAGIC: "OCFS2",
	0x0bd00bd0:             "Lustre",
	0x47504653:             "GPFS",
	0x19830326:             "BeeGFS",
	0x01161970:             "GFS2",
	0xaad7aaea:             "PanFS",
	0x013111a8:             "IBRIX",
	0x61636673:             "ACFS",
	0x20030528:             "OrangeFS",
}

// Space returns the free bytes of the file system on which an open file or directory lies, or -1 if they are not known,
// and the name of a network file system, or "" for a local one. A file system in memory has no more free bytes than
// memory has left.
func Space(f File) (free int64, network string, err error) {
	var st unix.Statfs_t
	err = control(f, func(fd int) error { return unix.Fstatfs(fd, &st) })
	if err == errNoFD {
		return -1, "", nil
	}
	if err != nil {
		return -1, "", err
	}
	free = int64(st.Bavail) * st.Bsize
	if st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC {
		if mem := memAvailable(); st.Blocks == 0 || mem >= 0 && mem < free {
			free = mem
		}
	}
	return free, networkFS[uint32(st.Type)], nil
}

// memAvailable returns MemAvailable of /proc/meminfo in bytes, or -1 if it is not known.
func memAvailable() int64 {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return -1
	}
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		if f := bytes.Fields(s.Bytes()); len(f) >= 2 && string(f[0]) == "MemAvailable:" {
			if kib, err := strconv.ParseInt(string(f[1]), 10, 64); err == nil {
				return kib << 10
			}
		}
	}
	return -1
}
