package durable

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// errNoFD is what control says of a file that has no descriptor, which only the
// ones of a test are.
var errNoFD = errors.New("not a file of the operating system")

// control runs one system call on the descriptor of f, again while a signal
// interrupts it (not for ever: a large fallocate may never get through).
func control(f File, call func(fd int) error) error {
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

// TryLock takes the exclusive lock of f, or fails at once; see IsLocked.
func TryLock(f File) error {
	err := control(f, func(fd int) error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
	if err == errNoFD {
		return nil
	}
	return err
}

// IsLocked says whether err means that somebody else holds the lock.
func IsLocked(err error) bool { return errors.Is(err, unix.EWOULDBLOCK) }

// WaitLock takes the exclusive lock of f; others hold it for a moment only.
func WaitLock(ctx context.Context, f File) error {
	err := TryLock(f)
	if !IsLocked(err) {
		return err
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for IsLocked(err) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			err = TryLock(f)
		}
	}
	return err
}

// Preallocate reserves size bytes without changing the length of f. Only a lack
// of space is an error; where the file system cannot, nothing is reserved, nor is
// it for a small File, where it costs more than it tells.
func Preallocate(f File, size int64) error {
	if size < 1<<20 {
		return nil
	}
	err := control(f, func(fd int) error { return unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, 0, size) })
	if err == nil || err == errNoFD {
		return nil
	}
	if NoSpace(err) {
		return err // the caller removes the file and what it reserved
	}
	info, serr := f.Stat()
	if serr != nil {
		return serr
	}
	return f.Truncate(info.Size()) // a failed one leaves blocks behind
}

// NoSpace says whether err means that more of the same cannot be written.
func NoSpace(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EFBIG)
}

// startWriteback begins to write a range of f to its device and does not wait.
func startWriteback(f File, off, n int64) error {
	err := control(f, func(fd int) error { return unix.SyncFileRange(fd, off, n, unix.SYNC_FILE_RANGE_WRITE) })
	if errors.Is(err, unix.EIO) || NoSpace(err) {
		return err
	}
	return nil // a hint, elsewhere not supported
}

// FreeSpace is how many bytes may be written to the file system of d, -1
// unknown. One that lives in memory has no more than what memory has left.
func FreeSpace(d File) (int64, error) {
	var st unix.Statfs_t
	err := control(d, func(fd int) error { return unix.Fstatfs(fd, &st) })
	if err == errNoFD {
		return -1, nil
	}
	if err != nil {
		return -1, err
	}
	free := int64(st.Bavail) * st.Bsize
	if st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC {
		if mem := memAvailable(); st.Blocks == 0 || mem >= 0 && mem < free {
			free = mem
		}
	}
	return free, nil
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
