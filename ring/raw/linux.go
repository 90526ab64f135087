package raw

import (
	"bufio"
	"bytes"
	"errors"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// errNoFD is what control says of a file that has no descriptor, which only the
// ones of a test are.
var errNoFD = errors.New("not a file of the operating system")

// control runs one system call on the descriptor of f, again while a signal
// interrupts it (not for ever: a large fallocate may never get through).
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
		for range 100 {
			if err = call(int(fd)); err != unix.EINTR {
				return
			}
		}
	})
	if cerr != nil {
		return cerr
	}
	return err
}

// lock takes the exclusive lock of f without waiting for it.
func lock(f file) error {
	err := control(f, func(fd int) error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
	if err == errNoFD {
		return nil
	}
	return err
}

// preallocate reserves size bytes without changing the length of f. Only a lack
// of space is an error; where the file system cannot, nothing is reserved, nor is
// it for a small file, where it costs more than it tells.
func preallocate(f file, size int64) error {
	if size < 1<<20 {
		return nil
	}
	err := control(f, func(fd int) error { return unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, 0, size) })
	if err == nil || err == errNoFD {
		return nil
	}
	if noSpace(err) {
		return err // the caller removes the file and what it reserved
	}
	info, serr := f.Stat()
	if serr != nil {
		return serr
	}
	return f.Truncate(info.Size()) // a failed one leaves blocks behind
}

// noSpace says whether err means that more of the same cannot be written.
func noSpace(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EFBIG)
}

// startWriteback begins to write a range of f to its device and does not wait.
func startWriteback(f file, off, n int64) error {
	err := control(f, func(fd int) error { return unix.SyncFileRange(fd, off, n, unix.SYNC_FILE_RANGE_WRITE) })
	if errors.Is(err, unix.EIO) || noSpace(err) {
		return err
	}
	return nil // a hint, elsewhere not supported
}

// clone makes dst share the blocks of src, where the file system can.
func clone(dst file, src any) error {
	return control(dst, func(to int) error {
		return control(src, func(from int) error { return unix.IoctlFileClone(to, from) })
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

// space is what statfs says of the file system d lies on: the free bytes (-1
// unknown) and the name of a network file system ("" for a local one). One that
// lives in memory has no more than what memory has left.
func space(d file) (free int64, network string, err error) {
	var st unix.Statfs_t
	err = control(d, func(fd int) error { return unix.Fstatfs(fd, &st) })
	if err == errNoFD {
		return -1, "", nil
	}
	if err != nil {
		return -1, "", err
	}
	free = int64(st.Bavail) * st.Bsize
	switch uint32(st.Type) {
	case unix.RAMFS_MAGIC:
		free = memAvailable()
	case unix.TMPFS_MAGIC:
		if mem := memAvailable(); st.Blocks == 0 || mem >= 0 && mem < free {
			free = mem
		}
	}
	return free, networkFS[uint32(st.Type)], nil
}

// memAvailable is the MemAvailable of /proc/meminfo in bytes, -1 unknown.
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
