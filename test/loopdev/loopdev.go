//go:build linux

// Package loopdev makes loop devices for tests. A test never touches a block device that it did not make: a Device is over
// a file of the test's own, which is looked at again before each use.
package loopdev

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Options are those of losetup(8). The zero value has sectors of 512 bytes and goes through the page cache of the file.
type Options struct {
	Sector   int  // bytes of a logical sector
	Direct   bool // the file is read and written with O_DIRECT, where its file system can
	PartScan bool // the kernel may read the partition table
	ReadOnly bool
}

// Device is a loop device.
type Device struct {
	Path string // below /dev
	File string // what it is over

	number   int
	dev, ino uint64 // of File
	detached bool
}

// New makes a sparse file of size bytes in dir and a loop device over it. The device is detached when the test ends. What is
// mounted from it, or holds it, the test has to give back before. Where loop devices cannot be made, the test is skipped,
// or fails if test/run runs it as root.
func New(t testing.TB, dir string, size int64, opts Options) *Device {
	t.Helper()
	f, err := os.CreateTemp(dir, "loop-*.img")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return Over(t, f.Name(), opts)
}

// Over makes a loop device over a regular file that the test has made.
func Over(t testing.TB, file string, opts Options) *Device {
	t.Helper()
	d, err := attach(file, opts)
	if errors.Is(err, os.ErrPermission) || errors.Is(err, os.ErrNotExist) {
		Cannot(t, "no loop device can be made: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Detach(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func attach(file string, opts Options) (*Device, error) {
	flags := os.O_RDWR
	if opts.ReadOnly {
		flags = os.O_RDONLY
	}
	f, err := os.OpenFile(file, flags, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fmt.Errorf("%s is not a regular file", file)
	}
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	config := unix.LoopConfig{Fd: uint32(f.Fd()), Size: uint32(opts.Sector)}
	copy(config.Info.File_name[:], filepath.Base(file))
	for _, set := range []struct {
		on   bool
		flag uint32
	}{{opts.Direct, unix.LO_FLAGS_DIRECT_IO}, {opts.PartScan, unix.LO_FLAGS_PARTSCAN}, {opts.ReadOnly, unix.LO_FLAGS_READ_ONLY}} {
		if set.on {
			config.Info.Flags |= set.flag
		}
	}
	for {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("a free loop device: %w", err)
		}
		d := &Device{Path: fmt.Sprintf("/dev/loop%d", n), File: file, number: n, dev: st.Dev, ino: st.Ino}
		err = d.control(func(fd int) error { return unix.IoctlLoopConfigure(fd, &config) })
		if errors.Is(err, unix.EBUSY) { // somebody else was faster
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("attach %s to %s: %w", file, d.Path, err)
		}
		return d, nil
	}
}

func (d *Device) control(do func(fd int) error) error {
	f, err := os.OpenFile(d.Path, os.O_RDWR, 0)
	if errors.Is(err, unix.EROFS) || errors.Is(err, os.ErrPermission) {
		f, err = os.Open(d.Path)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return do(int(f.Fd()))
}

// Check ends the test unless the device still is the one that was made.
func (d *Device) Check(t testing.TB) {
	t.Helper()
	if err := d.check(); err != nil {
		t.Fatal(err)
	}
}

func (d *Device) check() error {
	if d.detached {
		return fmt.Errorf("%s was detached", d.Path)
	}
	return d.control(func(fd int) error {
		info, err := unix.IoctlLoopGetStatus64(fd)
		if err != nil {
			return fmt.Errorf("%s: %w", d.Path, err)
		}
		if info.Inode != d.ino || info.Device != d.dev {
			return fmt.Errorf("%s is over another file than %s", d.Path, d.File)
		}
		return nil
	})
}

// Open opens the device after Check.
func (d *Device) Open(t testing.TB, flags int) *os.File {
	t.Helper()
	d.Check(t)
	f, err := os.OpenFile(d.Path, flags, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// Partition returns the path of a partition.
func (d *Device) Partition(number int) string { return fmt.Sprintf("%sp%d", d.Path, number) }

// Partitions returns the numbers of the partitions that the kernel knows of the device, in the order of their names.
func (d *Device) Partitions(t testing.TB) (numbers []int) {
	t.Helper()
	d.Check(t)
	found, err := filepath.Glob(fmt.Sprintf("/sys/block/loop%d/loop%[1]dp*/partition", d.number))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil {
			t.Fatal(err)
		}
		numbers = append(numbers, n)
	}
	return numbers
}

// Detach takes the device away from the file, with its partitions. Where somebody has it open, that happens once it
// was closed. A second call does nothing.
func (d *Device) Detach() error {
	if d.detached {
		return nil
	}
	if err := d.check(); err != nil {
		return err
	}
	d.detached = true
	return d.control(func(fd int) error {
		// LOOP_CLR_FD drops partitions only where the kernel may read the table.
		for n := 1; n <= 256; n++ {
			if err := dropPartition(fd, n); err != nil {
				return fmt.Errorf("partition %d of %s: %w", n, d.Path, err)
			}
		}
		if err := unix.IoctlSetInt(fd, unix.LOOP_CLR_FD, 0); err != nil {
			return fmt.Errorf("detach %s: %w", d.Path, err)
		}
		return nil
	})
}
