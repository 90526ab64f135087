package raw

import (
	"io"
	"io/fs"
	"math"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/ring/raw/disk"
)

// leastHole is the shortest hole in bytes that is worth to be skipped: a shorter one is read.
const leastHole = 64 << 10

// maxExtents is how many runs of data are counted in a file. What is behind them counts as data.
const maxExtents = 100_000

// These are about OpenZFS. Some of its versions (before 2.1.14 and 2.2.2, openzfs/zfs issue 15526) report holes where bytes were written
// that are not in their transaction group yet, and fsync does not end that: it only writes a log. A group ends after 5 s.
const (
	magicZFS  = 0x2fc12fc1 // of statfs(2)
	settlesIn = time.Minute
)

// believed reports whether a file has holes that can be skipped. A file without holes costs nothing.
func believed(f seeker) (ok bool) {
	err := disk.Control(f, func(fd int) error {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil || st.Size < LeavesFrom || st.Blocks >= st.Size/512 {
			return err
		}
		ok = TellsHoles(fd)
		return nil
	})
	return err == nil && ok
}

// TellsHoles reports whether SEEK_DATA tells the truth about an open file. A file system may report holes where written bytes still
// are in the page cache only (FUSE with a cache of writes is one that cannot know better), so the file is made durable first. It is
// called before the times of the file are looked at, because NFS sets them when the bytes arrive.
func TellsHoles(fd int) bool {
	var st unix.Stat_t
	var fsys unix.Statfs_t
	if unix.Fsync(fd) != nil || unix.Fstat(fd, &st) != nil || unix.Fstatfs(fd, &fsys) != nil {
		return false
	}
	return settled(int64(fsys.Type), time.Since(time.Unix(st.Ctim.Unix())))
}

// settled reports whether a file system of a type knows the holes of a file that was changed so long ago.
func settled(fsType int64, ago time.Duration) bool { return fsType != magicZFS || ago >= settlesIn }

// nextData returns where the first bytes at or behind off are that are stored, and where they end (lseek(2), SEEK_DATA and
// SEEK_HOLE). ok is false where the file system does not tell, or the file is shorter than size by now.
func nextData(f seeker, off, size int64) (from, to int64, ok bool) {
	from, err := seek(f, off, unix.SEEK_DATA)
	if err == unix.ENXIO {
		info, err := f.Stat()
		return size, size, err == nil && info.Size() >= size
	}
	if err != nil {
		return 0, 0, false
	}
	to, err = seek(f, from, unix.SEEK_HOLE)
	return min(from, size), min(to, size), err == nil
}

// seeker is an open file of the system.
type seeker interface {
	Stat() (fs.FileInfo, error)
	syscall.Conn
}

func seek(f seeker, off int64, whence int) (at int64, err error) {
	err = disk.Control(f, func(fd int) error {
		at, err = unix.Seek(fd, off, whence)
		return err
	})
	return at, err
}

// dataIn returns how many of the first size bytes of f are stored, size where nobody knows.
func dataIn(f *os.File, size int64) (n int64) {
	off := int64(0)
	for range maxExtents {
		from, to, ok := nextData(f, off, size)
		if !ok {
			break
		}
		n += to - from
		if off = to; off >= size {
			return n
		}
	}
	return n + size - off
}

// holeReader reads a file and knows where its holes are. It is a ring.ZeroSkipper.
type holeReader struct {
	io.ReadCloser // begins at off
	open          func(off int64) (io.ReadCloser, error)
	f             seeker
	off, size     int64
	from, to      int64 // the next data at or behind off
	soon          soon
}

// openSoon opens f at off with open, to be read up to size. holes says that its holes are skipped.
func openSoon(f seeker, size, off int64, holes bool, open func(off int64) (io.ReadCloser, error)) (io.ReadCloser, error) {
	if holes {
		return openHoles(f, size, off, open)
	}
	r, err := open(off)
	if err != nil {
		return nil, err
	}
	return &soonReader{ReadCloser: r, soon: soon{f: f}, off: off, size: size}, nil
}

// openHoles opens f at off with open.
func openHoles(f seeker, size, off int64, open func(off int64) (io.ReadCloser, error)) (io.ReadCloser, error) {
	r, err := open(off)
	if err != nil {
		return nil, err
	}
	return &holeReader{ReadCloser: r, open: open, f: f, off: off, size: size, from: off, to: off, soon: soon{f: f}}, nil
}

func (r *holeReader) Read(b []byte) (int, error) {
	if r.off >= r.from {
		r.soon.at(r.off, min(r.to, r.size))
	}
	n, err := r.ReadCloser.Read(b)
	r.off += int64(n)
	return n, err
}

// SkipZeros skips the hole that the reader stands in.
func (r *holeReader) SkipZeros(most int64) (int64, error) {
	if r.off >= r.to && r.off < r.size {
		ok := false
		if r.from, r.to, ok = nextData(r.f, r.off, r.size); !ok {
			r.from, r.to = r.off, math.MaxInt64
		} else if r.from-r.off < leastHole {
			r.from = r.off
		}
	}
	n := min(r.from-r.off, most)
	if n <= 0 {
		return 0, nil
	}
	next, err := r.open(r.off + n)
	if err != nil {
		return 0, err
	}
	r.ReadCloser.Close()
	r.ReadCloser, r.off = next, r.off+n
	return n, nil
}
