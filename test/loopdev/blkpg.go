//go:build linux

package loopdev

import (
	"errors"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// blkpg adds or deletes a partition (linux/blkpg.h).
func blkpg(fd int, op int32, p *unix.BlkpgPartition) error {
	arg := unix.BlkpgIoctlArg{Op: op, Datalen: int32(unsafe.Sizeof(*p)), Data: (*byte)(unsafe.Pointer(p))}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.BLKPG, uintptr(unsafe.Pointer(&arg))); errno != 0 {
		return errno
	}
	return nil
}

// copies is how long dropPartition waits for mount namespaces of other tests, which may have a copy of a mount that
// was undone: they end with a command.
const copies = 10 * time.Second

// dropPartition drops a partition if it is there.
func dropPartition(fd, number int) error {
	for end := time.Now().Add(copies); ; time.Sleep(20 * time.Millisecond) {
		p := unix.BlkpgPartition{Pno: int32(number)}
		err := blkpg(fd, unix.BLKPG_DEL_PARTITION, &p)
		switch {
		case errors.Is(err, unix.ENXIO):
			return nil
		case !errors.Is(err, unix.EBUSY) || time.Now().After(end):
			return err
		}
	}
}

// AddPartition tells the kernel of a partition, whose start and size are bytes, as addpart(8) does.
func (d *Device) AddPartition(t testing.TB, number int, start, size int64) {
	t.Helper()
	d.Check(t)
	p := unix.BlkpgPartition{Start: start, Length: size, Pno: int32(number)}
	if err := d.control(func(fd int) error { return blkpg(fd, unix.BLKPG_ADD_PARTITION, &p) }); err != nil {
		t.Fatalf("partition %d of %s: %v", number, d.Path, err)
	}
}
