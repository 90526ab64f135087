package raw

import (
	"io"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// leastHole is the shortest hole in bytes that is worth to be skipped: a shorter one is read.
const leastHole = 64 << 10

// maxExtents is how many runs of data are counted in a file. What is behind them counts as data.
const maxExtents = 100_000

// nextData returns where the first bytes at or behind off are that are stored, and where they end (lseek(2), SEEK_DATA and
// SEEK_HOLE). ok is false where the file system does not tell, or the file is shorter than size by now.
func nextData(f *os.File, off, size int64) (from, to int64, ok bool) {
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

func seek(f *os.File, off int64, whence int) (at int64, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	if cerr := raw.Control(func(fd uintptr) { at, err = unix.Seek(int(fd), off, whence) }); cerr != nil {
		return 0, cerr
	}
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
	f             *os.File
	off, size     int64
	from, to      int64 // the next data at or behind off
}

// openHoles opens f at off with open.
func openHoles(f *os.File, size, off int64, open func(off int64) (io.ReadCloser, error)) (io.ReadCloser, error) {
	r, err := open(off)
	if err != nil {
		return nil, err
	}
	return &holeReader{ReadCloser: r, open: open, f: f, off: off, size: size, from: off, to: off}, nil
}

func (r *holeReader) Read(b []byte) (int, error) {
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
