package tree

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// utimens sets the times of an open file. Package unix has it for names only.
func utimens(fd int, times []unix.Timespec) error {
	if _, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&times[0])), 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// noListAt says that this machine has no listxattrat(2).
var noListAt atomic.Bool

// listXattrs lists the names of the extended attributes of a name in the directory that is open as dir. The way through proc,
// for which at is, costs several times as much.
func listXattrs(dir int, name string, to []byte) (int, error) {
	if noListAt.Load() {
		return unix.Llistxattr(at(dir, name), to)
	}
	p, err := unix.BytePtrFromString(name)
	if err != nil {
		return 0, err
	}
	n, _, errno := unix.Syscall6(unix.SYS_LISTXATTRAT, uintptr(dir), uintptr(unsafe.Pointer(p)), unix.AT_SYMLINK_NOFOLLOW,
		uintptr(unsafe.Pointer(unsafe.SliceData(to))), uintptr(len(to)), 0)
	if errno == unix.ENOSYS || errno == unix.EPERM { // Linux before 6.13, or a sandbox does not know the call
		noListAt.Store(true)
		return unix.Llistxattr(at(dir, name), to)
	}
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
