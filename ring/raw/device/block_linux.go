package device

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/ring/raw/disk"
)

// Block is a block device of Linux that is read and written without the page cache.
type Block struct {
	f            *os.File
	name         string
	size, sector int64
	written      atomic.Bool // it cannot make zeros but by writing them
	bytes        atomic.Bool // the kernel cannot make them at all
}

// Open takes a block device that was opened for reading and writing, and closes it when the Block is closed. Whoever opened
// it has made sure that nobody else uses it (O_EXCL). name is for errors.
func Open(f *os.File, name string) (*Block, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("device %s: %w", name, err)
	}
	if info.Mode()&(fs.ModeDevice|fs.ModeCharDevice) != fs.ModeDevice {
		return nil, fmt.Errorf("%s is not a block device", name)
	}
	b := &Block{f: f, name: name}
	err = disk.Control(b.f, func(fd int) error {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		if err != nil {
			return err
		}
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags|unix.O_DIRECT); err != nil {
			return fmt.Errorf("direct access: %w", err)
		}
		sector, err := unix.IoctlGetInt(fd, unix.BLKSSZGET)
		b.sector = int64(sector)
		return err
	})
	if err == nil {
		b.size, err = f.Seek(0, io.SeekEnd)
	}
	if err != nil {
		return nil, fmt.Errorf("device %s: %w", name, err)
	}
	if b.sector <= 0 || b.sector > page || b.sector&(b.sector-1) != 0 {
		return nil, fmt.Errorf("device %s: sectors of %d bytes are not supported", name, b.sector)
	}
	return b, nil
}

// ReadAt reads len(p) bytes at off.
func (b *Block) ReadAt(p []byte, off int64) (int, error) { return b.f.ReadAt(p, off) }

// WriteAt writes p at off.
func (b *Block) WriteAt(p []byte, off int64) (int, error) { return b.f.WriteAt(p, off) }

// Size is the length of the device in bytes.
func (b *Block) Size() int64 { return b.size }

// Sector is the size of a logical sector in bytes.
func (b *Block) Sector() int64 { return b.sector }

// String is the name that Open was given.
func (b *Block) String() string { return b.name }

// Close closes the device.
func (b *Block) Close() error { return b.f.Close() }

// Flush has the device empty its cache.
func (b *Block) Flush() error { return b.f.Sync() }

// WritesZeros reports whether the device had to write zeros so far, because it cannot make holes.
func (b *Block) WritesZeros() bool { return b.written.Load() }

// Zero makes a hole where the device can, and lets the kernel write zeros where it cannot. For a block device, fallocate(2)
// with FALLOC_FL_PUNCH_HOLE zeroes without a fallback, and with FALLOC_FL_ZERO_RANGE as BLKZEROOUT does. The second one is
// never tried where the first one works: a loop device over a tmpfs refuses it, and then the first one for ever after.
func (b *Block) Zero(off, n int64) error {
	if !b.written.Load() {
		err := b.fallocate(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
		if !unsupported(err) {
			return err
		}
		b.written.Store(true)
	}
	if !b.bytes.Load() {
		err := b.fallocate(unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, off, n)
		if !unsupported(err) {
			return err
		}
		b.bytes.Store(true)
	}
	zeros := aligned(int(min(n, chunkSize)))
	for n > 0 {
		k := min(n, int64(len(zeros)))
		if _, err := b.f.WriteAt(zeros[:k], off); err != nil {
			return err
		}
		off, n = off+k, n-k
	}
	return nil
}

func unsupported(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS)
}

func (b *Block) fallocate(mode uint32, off, n int64) error {
	return disk.Control(b.f, func(fd int) error {
		for {
			if err := unix.Fallocate(fd, mode, off, n); err != unix.EINTR {
				return err
			}
		}
	})
}
