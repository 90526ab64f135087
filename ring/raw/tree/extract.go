package tree

import (
	"bytes"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/ring/raw"
)

// page is what a hole in a file is made of, in bytes.
const page = 4096

var zeroPage [page]byte

// writeBack is after how many bytes of a file the kernel is told to begin to write them.
const writeBack = 8 << 20

// extractor unpacks a stream, which it is given piece by piece, into a directory that nobody else can enter.
type extractor struct {
	title   string     // of the directory, for errors
	owner   *raw.Owner // nil: whom the stream says
	special bool
	uid     uint32 // who runs this, to whom what it makes belongs
	gid     uint32

	dirs []*openDir // from the top directory to the one that is filled
	top  *entry     // nil: it has not come yet

	head    []byte // headers of an entry, as far as they have come
	entry   entry  // what they say, but of a directory
	need    int    // how long they are, as far as that is known
	file    *entry // whose bytes come; nil: none
	fd      int    // of file
	off     int64  // where its next byte goes
	written int64  // up to where it has bytes
	told    int64  // up to where the kernel was told to begin to write
	pad     int64  // zeros that have to come
	tail    int    // blocks of zeros at the end that have come

	look    look // of all entries that are complete
	differs bool // the file system says something else of an entry than the stream
	scratch []byte
}

// openDir is a directory that is being filled.
type openDir struct {
	fd   int
	e    *entry
	last string // the name in it that came last
}

// newExtractor unpacks into the directory that is open as top, which it closes in the end.
func newExtractor(top int, title string, special bool, owner *raw.Owner) *extractor {
	return &extractor{
		title: title, owner: owner, special: special, uid: uint32(unix.Geteuid()), gid: uint32(unix.Getegid()),
		dirs: []*openDir{{fd: top}}, need: block, fd: -1,
	}
}

// fail says what could not be done with what.
func (x *extractor) fail(e *entry, what string, err error) error {
	return fmt.Errorf("output %s: %s %q: %w", x.title, what, shown(e.path), err)
}

// malformed is the error of a stream that is not what it should be.
func (x *extractor) malformed(err error) error {
	return fmt.Errorf("output %s: malformed stream: %w", x.title, err)
}

// write takes the next bytes of the stream.
func (x *extractor) write(b []byte) error {
	for len(b) > 0 {
		n := len(b)
		var err error
		switch {
		case x.file != nil:
			n = int(min(int64(n), x.file.size-x.off))
			err = x.content(b[:n])
		case x.pad > 0:
			n = int(min(int64(n), x.pad))
			if len(bytes.Trim(b[:n], "\x00")) > 0 {
				return x.malformed(errors.New("no zeros behind an entry"))
			}
			x.pad -= int64(n)
		default:
			n = min(n, x.need-len(x.head))
			x.head = append(x.head, b[:n]...)
			if len(x.head) == x.need {
				err = x.header()
			}
		}
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// zero takes n bytes of the stream that are zeros.
func (x *extractor) zero(n int64) error {
	for n > 0 {
		k := n
		var err error
		switch {
		case x.file != nil:
			k = min(n, x.file.size-x.off)
			err = x.went(k)
		case x.pad > 0:
			k = min(n, x.pad)
			x.pad -= k
		default:
			k = min(n, int64(x.need-len(x.head)), page)
			err = x.write(zeroPage[:k])
		}
		if err != nil {
			return err
		}
		n -= k
	}
	return nil
}

// header takes the headers that are in head, all of them or the first one.
func (x *extractor) header() error {
	b := x.head
	switch {
	case x.tail > 0 || len(b) == block && bytes.Equal(b, zeroPage[:block]):
		if x.tail++; x.tail > trailer/block || !bytes.Equal(b, zeroPage[:block]) {
			return x.malformed(errors.New("something is behind its end"))
		}
		x.head = x.head[:0]
		return nil
	case len(b) == block:
		n, err := recordsIn(b)
		if err != nil {
			return x.malformed(err)
		}
		x.need = 2*block + n
		return nil
	}
	var err error
	if x.scratch, err = decode(b, &x.entry, x.scratch); err != nil {
		return x.malformed(err)
	}
	x.head, x.need = x.head[:0], block
	e := &x.entry
	if e.kind == typeDir { // others come before it is complete
		e = new(entry)
		*e = x.entry
	}
	return x.begin(e)
}

// begin makes what an entry names.
func (x *extractor) begin(e *entry) error {
	if x.top == nil {
		if e.path != "." {
			return x.malformed(errors.New("it does not begin with the top directory"))
		}
		x.top, x.dirs[0].e = e, e
		return nil
	}
	dir, name, err := x.place(e)
	if err != nil {
		return err
	}
	switch e.kind {
	case typeDir:
		return x.directory(dir, name, e)
	case typeFile:
		return x.open(dir, name, e)
	case typeHardLink:
		err = x.hardLink(dir, name, e)
	case typeSymlink:
		if err = unix.Symlinkat(e.link, dir, name); err == nil {
			err = x.dressName(dir, name, e)
		}
	default:
		err = x.node(dir, name, e)
	}
	if err != nil {
		return x.fail(e, "make", err)
	}
	return nil
}

// place returns where an entry belongs. It leaves the directories that are complete, since the stream is in order.
func (x *extractor) place(e *entry) (dir int, name string, err error) {
	above, name := e.parent()
	for above != x.dirs[len(x.dirs)-1].e.path {
		if len(x.dirs) == 1 {
			return 0, "", x.malformed(fmt.Errorf("%q is not in its order", shown(e.path)))
		}
		if err := x.leave(); err != nil {
			return 0, "", err
		}
	}
	in := x.dirs[len(x.dirs)-1]
	if in.last >= name {
		return 0, "", x.malformed(fmt.Errorf("%q is not in its order", shown(e.path)))
	}
	in.last = name
	return in.fd, name, nil
}

func (x *extractor) directory(dir int, name string, e *entry) error {
	err := unix.Mkdirat(dir, name, 0o700)
	if err != nil {
		return x.fail(e, "make directory", err)
	}
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return x.fail(e, "open directory", err)
	}
	x.dirs = append(x.dirs, &openDir{fd: fd, e: e})
	return nil
}

// leave gives the last directory its attributes, once all that is in it was made.
func (x *extractor) leave() error {
	d := x.dirs[len(x.dirs)-1]
	x.dirs = x.dirs[:len(x.dirs)-1]
	defer unix.Close(d.fd)
	if err := x.dressOpen(d.fd, d.e); err != nil {
		return x.fail(d.e, "attributes of", err)
	}
	return nil
}

func (x *extractor) open(dir int, name string, e *entry) error {
	mode := e.mode & 0o777 // what the umask leaves of it is right for most files
	if len(e.xattrs) > 0 {
		mode = 0o600 // only who may write to a file gives it attributes
	}
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
	if err != nil {
		return x.fail(e, "make", err)
	}
	x.file, x.fd, x.off, x.written, x.told = e, fd, 0, 0, 0
	if e.size == 0 {
		return x.complete()
	}
	return nil
}

// content takes the next bytes of the file. Whole pages of zeros are left out.
func (x *extractor) content(b []byte) error {
	for len(b) > 0 {
		n := len(b)
		if skip := zeroPages(b, x.off); skip > 0 {
			if err := x.went(int64(skip)); err != nil {
				return err
			}
			b = b[skip:]
			continue
		}
		if x.file.size >= page {
			n = dataPages(b, x.off)
		}
		if err := x.pwrite(b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// zeroPages returns how many bytes at the front of b are whole pages of zeros of a file in which b stands at off.
func zeroPages(b []byte, off int64) int {
	n := 0
	if off%page == 0 {
		for len(b)-n >= page && bytes.Equal(b[n:n+page], zeroPage[:]) {
			n += page
		}
	}
	return n
}

// dataPages returns how many bytes at the front of b come before the next whole page of zeros.
func dataPages(b []byte, off int64) int {
	n := int(-off & (page - 1))
	if n == 0 {
		n = page
	}
	for n+page <= len(b) && !bytes.Equal(b[n:n+page], zeroPage[:]) {
		n += page
	}
	if n+page > len(b) {
		return len(b)
	}
	return n
}

func (x *extractor) pwrite(b []byte) error {
	for len(b) > 0 {
		n, err := unix.Pwrite(x.fd, b, x.off)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return x.fail(x.file, "write", err)
		}
		b = b[n:]
		x.written = x.off + int64(n)
		if err := x.went(int64(n)); err != nil {
			return err
		}
	}
	return nil
}

// went goes on by n bytes of the file, and completes it behind the last one.
func (x *extractor) went(n int64) error {
	x.off += n
	if x.off-x.told >= writeBack {
		_ = unix.SyncFileRange(x.fd, x.told, x.off-x.told, unix.SYNC_FILE_RANGE_WRITE) // the sync at the end has less to do
		x.told = x.off
	}
	if x.off < x.file.size {
		return nil
	}
	return x.complete()
}

// complete gives the file its length and attributes, and closes it.
func (x *extractor) complete() error {
	e := x.file
	var err error
	if x.written < e.size { // it ends with a hole
		err = unix.Ftruncate(x.fd, e.size)
	}
	if err == nil {
		err = x.dressOpen(x.fd, e)
	}
	if cerr := unix.Close(x.fd); err == nil {
		err = cerr
	}
	x.file, x.fd = nil, -1
	x.pad = padding(e.size)
	if err != nil {
		return x.fail(e, "complete", err)
	}
	return nil
}

// finish leaves all directories but the top one, which gets its attributes when it is put in place. It returns an error if
// the stream is not complete.
func (x *extractor) finish() error {
	if x.tail != trailer/block || x.top == nil {
		return x.malformed(errors.New("it is cut off"))
	}
	for len(x.dirs) > 1 {
		if err := x.leave(); err != nil {
			return err
		}
	}
	return nil
}

// close closes what is open.
func (x *extractor) close() {
	for _, d := range x.dirs {
		unix.Close(d.fd)
	}
	if x.fd >= 0 {
		unix.Close(x.fd)
	}
	x.dirs, x.fd = nil, -1
}
