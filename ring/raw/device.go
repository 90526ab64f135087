package raw

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/ring/errkind"
	"github.com/dolly-img/dolly-img/ring/leaf"
	"github.com/dolly-img/dolly-img/ring/raw/disk"
	"github.com/dolly-img/dolly-img/ring/raw/internal/ahead"
	"github.com/dolly-img/dolly-img/ring/raw/internal/whole"
)

// How a device is read: in parts of deviceChunk bytes, of which deviceCount are in memory for each reader. Offsets and
// lengths for O_DIRECT have to be multiples of a logical sector, which is no longer than deviceAlign.
const (
	deviceChunk = 2 << 20
	deviceCount = 3
	deviceAlign = 64 << 10
)

// Device is a block device as a source of one blob.
type Device struct {
	f    *os.File
	path string
	size int64
	// was is what is known of the device when it was opened. It has users only if they cannot write to it.
	was     *disk.Device
	written uint64
	reading whole.Reading
	// busy is held by each read, and by Close until those that are under way have returned: they keep the device from
	// whoever wants it next.
	busy sync.RWMutex
}

// IsDevice reports whether path leads to a block device.
func IsDevice(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode()&(fs.ModeDevice|fs.ModeCharDevice) == fs.ModeDevice
}

// OpenDevice opens a block device to be sent. Nobody else may use it meanwhile: the kernel refuses mounts of it while
// it is open. A device that is mounted already is refused, unless nothing can be written to the file system because it
// is mounted read-only everywhere.
//
// The device is read with O_DIRECT: what the page cache has of a disk stays as it is when somebody writes through a
// partition.
func OpenDevice(path string) (*Device, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_EXCL|unix.O_DIRECT, 0)
	busy := errors.Is(err, unix.EBUSY)
	if busy {
		f, err = os.OpenFile(path, os.O_RDONLY|unix.O_DIRECT, 0)
	}
	if errors.Is(err, unix.ENOMEDIUM) {
		return nil, noMedium(path)
	}
	if err != nil {
		return nil, errkind.Errorf("input-unreadable", "input: %w", err)
	}
	d := &Device{f: f, path: path}
	if err := d.begin(busy); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return d, nil
}

func noMedium(path string) error {
	return errkind.Errorf("input-medium", "input %s has no medium", path)
}

// begin notes what the device is like before anything is read.
func (d *Device) begin(busy bool) (err error) {
	if d.size, err = d.f.Seek(0, io.SeekEnd); err != nil {
		return errkind.Errorf("input-unreadable", "input: %w", err)
	}
	if d.size == 0 {
		return noMedium(d.path)
	}
	m, now, err := d.look()
	if err != nil {
		return err
	}
	if d.was = now; busy {
		if err := d.readOnly(m); err != nil {
			return err
		}
	}
	// What was written before and is in memory only would count as written meanwhile.
	if err := d.f.Sync(); err != nil {
		return errkind.Errorf("input-unreadable", "input: %w", err)
	}
	d.written, err = writes(now.Number)
	return err
}

// look returns what is known of all devices, and of this one.
func (d *Device) look() (*disk.Machine, *disk.Device, error) {
	m, err := disk.Host().Scan()
	if err != nil {
		return nil, nil, fmt.Errorf("input %s: %w", d.path, err)
	}
	info, err := d.f.Stat()
	if err != nil {
		return nil, nil, fmt.Errorf("input: %w", err)
	}
	number := info.Sys().(*syscall.Stat_t).Rdev
	now := m.Numbered(fmt.Sprintf("%d:%d", unix.Major(number), unix.Minor(number)))
	if now == nil {
		return nil, nil, errkind.Errorf("input-changes", "input %s: the device is gone", d.path)
	}
	return m, now, nil
}

// readOnly returns an error unless all that uses the device, or a partition of it, is known and is a file system to which
// nothing can be written.
func (d *Device) readOnly(m *disk.Machine) error {
	users := d.was.Users
	if i := slices.IndexFunc(users, func(u disk.User) bool { return !u.ReadOnly }); i >= 0 {
		at, mounted := strings.CutPrefix(users[i].What, "mounted at ")
		if !mounted {
			return errkind.About("input-held", users[i].What, "input %s is in use: %s", d.path, d.was.Busy())
		}
		return errkind.About("input-mounted", at, "input %s is in use: %s", d.path, d.was.Busy())
	}
	// A mount that is seen from here may explain one partition, while another is mounted where it is not seen.
	for _, part := range m.Devices {
		if part.Parent != d.was.Name || part.MapName != "" || slices.ContainsFunc(users, func(u disk.User) bool { return u.On == part.Name }) {
			continue
		}
		f, err := os.OpenFile(part.Path, os.O_RDONLY|unix.O_EXCL, 0)
		if err != nil {
			return errkind.Errorf("input-busy", "input %s is in use, and it does not show by what: %w", d.path, err)
		}
		f.Close()
	}
	if len(users) == 0 {
		return errkind.Errorf("input-busy", "input %s is in use, and it does not show by what", d.path)
	}
	return nil
}

// writes returns how many sectors of a device were written or discarded since it is there
// (Documentation/block/stat.rst). A device that does not count says 0.
func writes(number string) (uint64, error) {
	text, err := os.ReadFile(filepath.Join("/sys/dev/block", number, "stat"))
	if err != nil {
		return 0, fmt.Errorf("input: %w", err)
	}
	var sum uint64
	fields := strings.Fields(string(text))
	for _, i := range []int{6, 13} { // write sectors, discard sectors
		if i < len(fields) {
			n, err := strconv.ParseUint(fields[i], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("input: counters of device %s: %w", number, err)
			}
			sum += n
		}
	}
	return sum, nil
}

// Size is the length of the device in bytes.
func (d *Device) Size() int64 { return d.size }

// Sector is the size of a logical sector in bytes, or 0 where that is not known.
func (d *Device) Sector() int64 { return int64(d.was.LogicalSector) }

// ReadAt reads bytes of the device at any offset and into any memory, as io.ReaderAt says.
func (d *Device) ReadAt(b []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, fmt.Errorf("input %s: offset %d", d.path, off)
	}
	buf := ahead.Buffer(min(len(b)/deviceAlign*deviceAlign+2*deviceAlign, deviceChunk))
	for n < len(b) {
		at := off + int64(n)
		if at >= d.size {
			return n, io.EOF
		}
		r := deviceReader{d, at &^ (deviceAlign - 1)}
		lead := at - r.off
		k, err := r.Read(buf)
		if int64(k) <= lead {
			return n, cmp.Or(err, io.ErrUnexpectedEOF)
		}
		n += copy(b[n:], buf[lead:k])
	}
	return n, nil
}

// Blobs is the device, which travels in leaves.
func (d *Device) Blobs(context.Context) ([]v1.Descriptor, error) {
	b := Describe(d.path, d.size)
	b.MediaType = leaf.MediaType
	return []v1.Descriptor{b}, nil
}

// Open reads the device from off on. An error of the device names the first byte that could not be read.
func (d *Device) Open(ctx context.Context, _ v1.Descriptor, off int64) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if off < 0 || off > d.size {
		return nil, fmt.Errorf("input %s: offset %d is outside its %d bytes", d.path, off, d.size)
	}
	from := off &^ (deviceAlign - 1)
	r := ahead.New(ctx, deviceChunk, deviceCount, func(context.Context) (io.ReadCloser, error) {
		return &deviceReader{d, from}, nil
	})
	if off == 0 {
		return d.reading.Watch(r), nil
	}
	if _, err := io.CopyN(io.Discard, r, off-from); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// deviceReader reads into aligned buffers.
type deviceReader struct {
	d   *Device
	off int64
}

func (r *deviceReader) Read(b []byte) (int, error) {
	if r.off >= r.d.size {
		return 0, io.EOF
	}
	r.d.busy.RLock()
	defer r.d.busy.RUnlock()
	n, err := r.d.f.ReadAt(b, r.off)
	r.off += int64(n)
	switch {
	case n > 0:
		return n, nil
	case err == io.EOF:
		return 0, errkind.Errorf("input-unreadable", "input %s ends at byte %d of %d", r.d.path, r.off, r.d.size)
	}
	at := r.d.broken(r.off, len(b))
	return 0, errkind.Errorf("input-unreadable", "input %s cannot be read at byte %d: %w", r.d.path, at, cause(err))
}

// broken returns the first of n bytes from off on that cannot be read. A read of many bytes does not say it.
func (d *Device) broken(off int64, n int) int64 {
	b := ahead.Buffer(min(n, 4<<10))
	for end := off + int64(n); off < end; off += int64(len(b)) {
		if _, err := d.f.ReadAt(b, off); err != nil {
			break
		}
	}
	return off
}

// cause returns the error of the kernel in one of package os, which names the file in another way than we do.
func cause(err error) error {
	if p := new(fs.PathError); errors.As(err, &p) {
		return p.Err
	}
	return err
}

func (*deviceReader) Close() error { return nil }

// WantSHA256 has SHA256 computed by what reads the device. It is called before Open.
func (d *Device) WantSHA256() { d.reading.Want() }

// SHA256 returns the digest of the device as sha256sum has it, once all of it was read, or "" where nobody wanted it.
func (d *Device) SHA256() digest.Digest { return d.reading.Sum() }

// Unchanged returns an error when the device is another one than the one that was opened, or has another size, or when
// something was written to it or could have been, because it is used otherwise than before.
func (d *Device) Unchanged(context.Context) error {
	size, err := d.f.Seek(0, io.SeekEnd)
	if err != nil {
		return errkind.Errorf("input-unreadable", "input: %w", err)
	}
	_, now, err := d.look()
	if err != nil {
		return err
	}
	written, err := writes(now.Number)
	switch {
	case err != nil:
		return err
	case size != d.size || now.DiskSeq != d.was.DiskSeq || now.Name != d.was.Name:
		return errkind.Errorf("input-changes", "input %s is another device now, or has another size", d.path)
	case !slices.Equal(now.Users, d.was.Users):
		return errkind.Errorf("input-changes", "input %s is used otherwise than when the transfer began: %s", d.path, now.Busy())
	case written != d.written:
		return errkind.Errorf("input-changes", "input %s was written to while it was read", d.path)
	}
	return nil
}

// Close ends the source and every reader of it.
func (d *Device) Close() error {
	err := d.f.Close() // no other read begins
	d.busy.Lock()
	defer d.busy.Unlock()
	return err
}
