package tree

import (
	"context"
	"io"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/raw"
)

// leastHole is the shortest hole in bytes that is worth to be skipped.
const leastHole = 64 << 10

// reader reads the stream from some offset on.
type reader struct {
	ctx context.Context
	s   *Source

	next    int    // the entry that comes behind the one that is read
	headers []byte // what is left of the headers of the one that is read
	buf     []byte // where headers are made
	file    *found // the file that is open, or nil
	fd      int
	skips   bool  // its holes can be skipped
	off     int64 // of its next byte
	hole    int64 // up to where nothing is stored behind off
	data    int64 // up to where bytes are stored behind hole
	zeros   int64 // what is left of the zeros behind an entry
	end     bool  // the last zeros of the stream are among zeros
}

// enter goes to the next entry, or behind the last one.
func (r *reader) enter() error {
	if r.next == len(r.s.all) {
		r.zeros, r.end = trailer, true
		return nil
	}
	f := r.s.all[r.next]
	r.next++
	r.buf = f.encode(r.buf[:0])
	r.headers = r.buf
	r.zeros = padding(f.size)
	if f.size > 0 {
		r.file, r.off, r.hole, r.data = f, 0, 0, 0
	}
	return nil
}

// skip goes on by n bytes, which are no more than are left of the entry.
func (r *reader) skip(n int64) error {
	k := min(n, int64(len(r.headers)))
	r.headers = r.headers[k:]
	if n -= k; r.file != nil {
		k = min(n, r.file.size)
		r.off += k
		n -= k
		if r.off == r.file.size { // it was read before, by another reader
			r.file = nil
		}
	}
	r.zeros -= n
	return nil
}

func (r *reader) Read(b []byte) (n int, err error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	// Many small entries fill one buffer, so that frames are not as short as they are.
	for n < len(b) {
		k := 0
		switch {
		case len(r.headers) > 0:
			k = copy(b[n:], r.headers)
			r.headers = r.headers[k:]
		case r.file != nil:
			if n > 0 && r.file.sparse {
				return n, nil // a hole may begin here
			}
			k, err = r.readFile(b[n:])
		case r.zeros > 0:
			k = int(min(int64(len(b)-n), r.zeros))
			clear(b[n : n+k])
			r.zeros -= int64(k)
		case r.end:
			if n == 0 {
				err = io.EOF
			}
			return n, err
		default:
			err = r.enter()
		}
		n += k
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// open opens the file that comes next, and makes sure that it is the one that was found.
func (r *reader) open() error {
	if r.fd >= 0 {
		return nil
	}
	flags := unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	fd, err := openBelow(r.s.top, r.file.path, flags|unix.O_NOATIME)
	if err == unix.EPERM { // the file is another user's
		fd, err = openBelow(r.s.top, r.file.path, flags)
	}
	if err != nil {
		return r.fail(err)
	}
	r.fd = fd
	r.skips = r.file.size-r.file.stored() >= leastHole && raw.TellsHoles(fd)
	return r.still()
}

// openBelow opens a path below a directory, and follows no link on the way. So nobody who exchanges a directory has something
// opened that is elsewhere, such as a device, with which that alone may do something.
func openBelow(dir int, path string, flags int) (int, error) {
	how := unix.OpenHow{Flags: uint64(flags), Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS}
	fd, err := unix.Openat2(dir, path, &how)
	if err == unix.ENOSYS || err == unix.EPERM && flags&unix.O_NOATIME == 0 { // Linux before 5.6, or a sandbox does not know the call
		fd, err = unix.Openat(dir, path, flags, 0)
	}
	return fd, err
}

// fail says what happened to the file.
func (r *reader) fail(err error) error {
	w := walker{title: r.s.title}
	return w.fail(r.file.path, err)
}

// still returns an error unless the file is as it was found.
func (r *reader) still() error {
	var st unix.Stat_t
	if err := unix.Fstat(r.fd, &st); err != nil {
		return r.fail(err)
	}
	if identityOf(&st) != r.file.identity {
		return changed(filepath.Join(r.s.title, r.file.path))
	}
	return nil
}

func (r *reader) readFile(b []byte) (int, error) {
	if err := r.open(); err != nil {
		return 0, err
	}
	end := r.file.size
	if r.file.sparse && r.off < r.data {
		end = r.data
	}
	want := b[:min(int64(len(b)), end-r.off)]
	n, err := unix.Pread(r.fd, want, r.off)
	for err == unix.EINTR {
		n, err = unix.Pread(r.fd, want, r.off)
	}
	if err != nil {
		return 0, r.fail(err)
	}
	if n == 0 {
		return 0, changed(filepath.Join(r.s.title, r.file.path))
	}
	return n, r.went(int64(n))
}

// went goes on by n bytes of the file, and closes it behind the last one.
func (r *reader) went(n int64) error {
	if r.off += n; r.off < r.file.size {
		return nil
	}
	err := r.still()
	unix.Close(r.fd)
	r.file, r.fd = nil, -1
	return err
}

// SkipZeros skips a hole of the file that is read.
func (r *reader) SkipZeros(most int64) (int64, error) {
	if len(r.headers) > 0 || r.file == nil || !r.file.sparse {
		return 0, nil
	}
	if err := r.open(); err != nil || !r.skips {
		return 0, err
	}
	if r.off >= r.data {
		r.look()
	}
	n := min(r.hole-r.off, most)
	if n <= 0 {
		return 0, nil
	}
	return n, r.went(n)
}

// look finds the hole in which the file stands, if it does, and the bytes behind that.
func (r *reader) look() {
	size := r.file.size
	r.hole, r.data = r.off, size
	from, err := unix.Seek(r.fd, r.off, unix.SEEK_DATA)
	if err == unix.ENXIO {
		from, err = size, nil
	}
	if err != nil {
		return // the file system does not tell
	}
	to := size
	if from < size {
		if to, err = unix.Seek(r.fd, from, unix.SEEK_HOLE); err != nil {
			to = size
		}
	}
	if from = min(from, size); from-r.off >= leastHole {
		r.hole = from
	}
	r.data = min(max(to, r.off+1), size)
}

func (r *reader) Close() error {
	if r.fd >= 0 {
		unix.Close(r.fd)
		r.fd = -1
	}
	return nil
}

var _ ring.ZeroSkipper = (*reader)(nil)
