package reread

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"github.com/dolly-img/dolly-img/ring/raw/gpt"
	"golang.org/x/sys/unix"
)

// A Way is how the kernel came to know the partitions of a disk. It is a sentence for the user without its subject.
type Way string

// The ways.
const (
	Kernel Way = "read again by the kernel"
	Told   Way = "told to the kernel one by one, because it does not read such a table itself"
	Udev   Way = "read again by the kernel at udev's request"
)

// ErrPrivilege is the error of a process that must not have a partition table read again: it lacks CAP_SYS_ADMIN. Whoever
// gets it closes the disk, which udev takes notice of, and calls Wait.
var ErrPrivilege = errors.New("no privilege to have the partition table read again (CAP_SYS_ADMIN)")

// Patience is how long Wait waits for udev.
const Patience = 10 * time.Second

const (
	poll          = 100 * time.Millisecond
	sysfsSector   = 512 // bytes, whatever the disk's logical sector is (Documentation/ABI/stable/sysfs-block)
	maxPartitions = 256 // of a disk (DISK_MAX_PARTS in the kernel)
)

// A Disk is a whole disk as the kernel knows it.
type Disk struct {
	dir string // in sysfs
}

// Find returns the disk that f is. sys is where sysfs is mounted. ok is false for what has no partitions: a partition.
func Find(sys string, f *os.File) (d Disk, ok bool, err error) {
	var st unix.Stat_t
	err = control(f, func(fd int) error { return unix.Fstat(fd, &st) })
	if err != nil {
		return d, false, fmt.Errorf("%s: %w", f.Name(), err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return d, false, fmt.Errorf("%s is not a block device", f.Name())
	}
	d.dir = filepath.Join(sys, "dev/block", fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev)))
	if d.dir, err = filepath.EvalSymlinks(d.dir); err != nil {
		return d, false, err
	}
	switch _, err := os.Stat(filepath.Join(d.dir, "partition")); {
	case err == nil:
		return d, false, nil
	case !errors.Is(err, os.ErrNotExist):
		return d, false, err
	}
	return d, true, nil
}

// Partitions lists the partitions that the kernel knows of the disk, in the order of their numbers.
func (d Disk) Partitions() (list []gpt.Partition, err error) {
	children, err := os.ReadDir(d.dir)
	if err != nil {
		return nil, err
	}
	for _, c := range children {
		var p [3]int64
		for i, name := range []string{"partition", "start", "size"} {
			if p[i], err = d.number(c.Name(), name); err != nil {
				break
			}
		}
		switch {
		case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ENODEV):
			continue // no partition, or one that vanished meanwhile
		case err != nil:
			return nil, err
		}
		list = append(list, gpt.Partition{Number: int(p[0]), Start: p[1] * sysfsSector, Size: p[2] * sysfsSector})
	}
	slices.SortFunc(list, func(a, b gpt.Partition) int { return cmp.Compare(a.Number, b.Number) })
	return list, nil
}

func (d Disk) number(names ...string) (int64, error) {
	file := filepath.Join(append([]string{d.dir}, names...)...)
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", file, err)
	}
	return n, nil
}

// shown returns the partitions of a table as the kernel shows them: not those behind the end of the disk, of extended ones
// only the beginning, where a boot loader may be, and nothing that sysfs does not say.
func (d Disk) shown(table []gpt.Partition) (list []gpt.Partition, err error) {
	sectors, err1 := d.number("size")
	logical, err2 := d.number("queue/logical_block_size")
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	for _, p := range table {
		left := sectors*sysfsSector - p.Start
		if p.Extended {
			left = min(left, max(2*sysfsSector, logical))
		}
		if left > 0 && p.Number <= maxPartitions {
			list = append(list, gpt.Partition{Number: p.Number, Start: p.Start, Size: min(p.Size, left)})
		}
	}
	return list, nil
}

// Again drops the partitions that the kernel knows of the disk that f is, and has it read the table, which names those of
// table. The kernel may lack the code for such tables; then it is told of each partition. When it returns without an error,
// the kernel knows exactly these. A partition that is mounted or open is an error that names it.
func (d Disk) Again(f *os.File, table []gpt.Partition) (way Way, err error) {
	want, err := d.shown(table)
	if err != nil {
		return "", err
	}
	err = control(f, func(fd int) error { return unix.IoctlSetInt(fd, unix.BLKRRPART, 0) })
	switch {
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return "", ErrPrivilege
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOTTY): // busy, or no code at all
	case err != nil:
		return "", fmt.Errorf("read the partition table of %s again: %w", f.Name(), err)
	default:
		if known, err := d.Partitions(); err != nil || slices.Equal(known, want) {
			return Kernel, err
		}
	}
	return Told, d.tell(f, want)
}

// tell drops all partitions and adds others.
func (d Disk) tell(f *os.File, want []gpt.Partition) error {
	known, err := d.Partitions()
	if err != nil {
		return err
	}
	for _, p := range known {
		switch err := blkpg(f, unix.BLKPG_DEL_PARTITION, p); {
		case errors.Is(err, unix.EBUSY):
			return fmt.Errorf("partition %d of %s is mounted or open: %w", p.Number, f.Name(), err)
		case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
			return ErrPrivilege
		case err != nil && !errors.Is(err, unix.ENXIO): // it vanished meanwhile
			return fmt.Errorf("drop partition %d of %s: %w", p.Number, f.Name(), err)
		}
	}
	for _, p := range want {
		switch err := blkpg(f, unix.BLKPG_ADD_PARTITION, p); {
		case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
			return ErrPrivilege
		case err != nil:
			return fmt.Errorf("add partition %d of %s: %w", p.Number, f.Name(), err)
		}
	}
	return nil
}

// Wait waits until the kernel knows exactly the partitions of table, because udev had it read the table after the disk was
// closed, for Patience at most.
func (d Disk) Wait(ctx context.Context, table []gpt.Partition) (Way, error) {
	want, err := d.shown(table)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, Patience, fmt.Errorf("the kernel does not know the new partitions %v after the disk was closed: partprobe or a reboot makes it read the table", Patience))
	defer cancel()
	for {
		known, err := d.Partitions()
		if err != nil {
			return "", err
		}
		if slices.Equal(known, want) {
			return Udev, nil
		}
		select {
		case <-ctx.Done():
			return "", context.Cause(ctx)
		case <-time.After(poll):
		}
	}
}

func control(f *os.File, do func(fd int) error) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var done error
	if err := c.Control(func(fd uintptr) { done = do(int(fd)) }); err != nil {
		return err
	}
	return done
}

// blkpg adds or drops a partition (linux/blkpg.h).
func blkpg(f *os.File, op int32, p gpt.Partition) error {
	data := unix.BlkpgPartition{Start: p.Start, Length: p.Size, Pno: int32(p.Number)}
	arg := unix.BlkpgIoctlArg{Op: op, Datalen: int32(unsafe.Sizeof(data)), Data: (*byte)(unsafe.Pointer(&data))}
	return control(f, func(fd int) error {
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.BLKPG, uintptr(unsafe.Pointer(&arg))); errno != 0 {
			return errno
		}
		return nil
	})
}
