package disk

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// diskSeq asks the kernel for the sequence number of an opened device, as BLKGETDISKSEQ of linux/fs.h does.
func diskSeq(fd int) (seq uint64, err error) {
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.BLKGETDISKSEQ, uintptr(unsafe.Pointer(&seq))); e != 0 {
		return 0, syscall.Errno(e)
	}
	return seq, nil
}
