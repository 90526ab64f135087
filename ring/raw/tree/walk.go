package tree

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

// Options say what of a directory is sent.
type Options struct {
	// Exclude has patterns of what is left out, with all that is in it, as rsync has them: one that begins with a slash
	// fits paths from the top directory on, any other fits the last names of a path; one that ends with a slash fits
	// directories only. ? and [a-z] stand for one character, * for any number, none of them for a slash. ** is not
	// supported.
	Exclude []string
	// Special also sends devices and named pipes. Without it one of these is an error.
	Special bool
	// Skipped is called with each socket that is left out. It may be nil.
	Skipped func(path string)
	// Unfit is called with each pattern of Exclude that fits nothing but what others leave out. It may be nil.
	Unfit func(pattern string)

	xattrs int // of how many entries extended attributes are read; 0 is all
}

// identity is by what an inode is known again, as long as nothing of it is changed.
type identity struct {
	dev, ino     uint64
	length       int64 // of the inode in bytes
	mtime, ctime unix.Timespec
}

func identityOf(st *unix.Stat_t) identity {
	return identity{dev: st.Dev, ino: st.Ino, length: st.Size, mtime: st.Mtim, ctime: st.Ctim}
}

// found is an entry as it was found in the file system.
type found struct {
	entry
	identity
	sparse bool  // fewer blocks are stored than a file is long
	blocks int64 // bytes of a sparse file that are stored
}

// walker goes through a directory in the order of the stream.
type walker struct {
	title   string // of the top directory, for errors
	exclude []pattern
	o       Options
	linked  map[[2]uint64]string // the first name of an inode that has several
	dev     uint64               // of a directory that is known to be stored
	seen    int                  // entries
	visit   func(f *found) error
	buf     []byte // for names
}

// walk calls visit for everything in the directory that is open as top. The found is visit's to keep.
func walk(top int, title string, o Options, visit func(f *found) error) error {
	exclude, err := parsePatterns(o.Exclude)
	if err != nil {
		return err
	}
	w := &walker{title: title, exclude: exclude, o: o, linked: map[[2]uint64]string{}, visit: visit}
	var st unix.Stat_t
	if err := unix.Fstat(top, &st); err != nil {
		return w.fail(".", err)
	}
	f, err := w.entry(top, ".", &st)
	if err != nil {
		return err
	}
	if err := visit(f); err != nil {
		return err
	}
	own, err := unix.Openat(top, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0) // others have read in top
	if err != nil {
		return w.fail(".", err)
	}
	defer unix.Close(own)
	if err := w.dir(own, ".", st.Dev); err != nil || o.Unfit == nil {
		return err
	}
	for i, p := range w.exclude {
		if !p.fitted {
			o.Unfit(o.Exclude[i])
		}
	}
	return nil
}

// excluded reports whether a pattern fits a path, and notes which ones do.
func (w *walker) excluded(rel string, dir bool) (out bool) {
	for i := range w.exclude {
		if p := &w.exclude[i]; p.fits(rel, dir) {
			p.fitted, out = true, true
		}
	}
	return out
}

// ofKernel has the types of file systems in which a file is not as long as it says.
var ofKernel = []int64{unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC}

// stored returns an error for a directory whose files are made when they are read.
func (w *walker) stored(fd int, rel string) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return w.fail(rel, err)
	}
	if slices.Contains(ofKernel, int64(st.Type)) {
		return errkind.Errorf("input-kernel", "input %s: its files are made by the kernel when they are read", path.Join(w.title, rel))
	}
	return nil
}

// fail says what happened to which path.
func (w *walker) fail(rel string, err error) error {
	if errkind.Has(err) {
		return err
	}
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) { // a link is in its place
		return changed(path.Join(w.title, rel))
	}
	return errkind.Errorf("input-unreadable", "input %s: %w", path.Join(w.title, rel), err)
}

// changed is the error of what is not what it was when it was looked at first.
func changed(p string) error {
	return errkind.Errorf("input-changes", "input %s changed while it was read", p)
}

// dir visits what is in a directory that was opened for that.
func (w *walker) dir(fd int, rel string, dev uint64) error {
	if dev != w.dev {
		if err := w.stored(fd, rel); err != nil {
			return err
		}
	}
	w.dev = dev
	list, err := w.names(fd)
	if err != nil {
		return w.fail(rel, err)
	}
	slices.Sort(list)
	for _, name := range list {
		if err := w.name(fd, rel, name); err != nil {
			return err
		}
	}
	return nil
}

// names lists a directory that was opened for that.
func (w *walker) names(fd int) (all []string, err error) {
	if w.buf == nil {
		w.buf = make([]byte, 32<<10)
	}
	for {
		n, err := unix.ReadDirent(fd, w.buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			return all, err
		}
		_, _, all = unix.ParseDirent(w.buf[:n], -1, all)
	}
}

// name visits one name in a directory, and what is below it.
func (w *walker) name(dir int, above, name string) error {
	rel := name
	if above != "." {
		rel = above + "/" + name
	}
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return w.fail(rel, err)
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if w.excluded(rel, isDir) {
		return nil
	}
	if st.Mode&unix.S_IFMT == unix.S_IFSOCK {
		if w.o.Skipped != nil {
			w.o.Skipped(path.Join(w.title, rel))
		}
		return nil
	}
	fd := -1
	if isDir {
		var err error
		if fd, err = unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0); err != nil {
			return w.fail(rel, err)
		}
		defer unix.Close(fd)
		was := identityOf(&st)
		if err := unix.Fstat(fd, &st); err != nil {
			return w.fail(rel, err)
		}
		if identityOf(&st) != was {
			return changed(path.Join(w.title, rel))
		}
	}
	f, err := w.entry(dir, rel, &st)
	if err != nil {
		return err
	}
	if err := w.visit(f); err != nil || !isDir {
		return err
	}
	return w.dir(fd, rel, st.Dev)
}

// kinds has the type of an entry for that of an inode.
var kinds = map[uint32]byte{
	unix.S_IFREG: typeFile, unix.S_IFDIR: typeDir, unix.S_IFLNK: typeSymlink,
	unix.S_IFCHR: typeChar, unix.S_IFBLK: typeBlock, unix.S_IFIFO: typeFIFO,
}

// entry makes an entry of a name in the directory that is open as dir.
func (w *walker) entry(dir int, rel string, st *unix.Stat_t) (*found, error) {
	f := &found{identity: identityOf(st), entry: entry{path: rel, kind: kinds[st.Mode&unix.S_IFMT]}}
	if f.kind != typeDir && st.Nlink > 1 {
		first, ok := w.linked[[2]uint64{st.Dev, st.Ino}]
		if ok {
			f.kind, f.link = typeHardLink, first
			return f, w.checked(f)
		}
		w.linked[[2]uint64{st.Dev, st.Ino}] = rel
	}
	f.is(st)
	_, name := f.parent()
	var err error
	if f.kind == typeSymlink {
		f.link, err = readlink(dir, name)
	}
	if w.seen++; err == nil && (w.o.xattrs == 0 || w.seen <= w.o.xattrs) {
		f.xattrs, err = xattrsOf(dir, name)
	}
	if err != nil {
		return nil, w.fail(rel, err)
	}
	return f, w.checked(f)
}

// is takes what the file system says of an entry whose path and type are known.
func (f *found) is(st *unix.Stat_t) {
	f.identity = identityOf(st)
	f.mode, f.uid, f.gid = st.Mode&0o7777, st.Uid, st.Gid
	f.sec, f.nsec = st.Mtim.Sec, int32(st.Mtim.Nsec)
	switch f.kind {
	case typeFile:
		f.size, f.blocks = st.Size, st.Blocks*512
		f.sparse = f.blocks < f.size
	case typeChar, typeBlock:
		f.major, f.minor = unix.Major(st.Rdev), unix.Minor(st.Rdev)
	}
}

// describe returns what the file system says of a name in the directory that is open as dir, but for extended attributes.
func describe(dir int, name string) (*found, error) {
	var st unix.Stat_t
	err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	f := &found{entry: entry{path: name, kind: kinds[st.Mode&unix.S_IFMT]}}
	if f.is(&st); err == nil && f.kind == typeSymlink {
		f.link, err = readlink(dir, name)
	}
	return f, err
}

// checked returns an error for what cannot be sent.
func (w *walker) checked(f *found) error {
	title := func() string { return path.Join(w.title, f.path) }
	if !w.o.Special && (f.kind == typeChar || f.kind == typeBlock || f.kind == typeFIFO) {
		return errkind.Errorf("input-special", "input %s is a device or a named pipe", title())
	}
	err := f.check()
	if err == nil && len(f.xattrs) > 0 && len(f.appendRecords(nil)) > maxRecords { // paths alone are shorter
		err = errors.New("its extended attributes have more than 1 MiB")
	}
	if err != nil {
		return errkind.Errorf("input-entry", "input %s: %w", title(), err)
	}
	return nil
}

func readlink(dir int, name string) (string, error) {
	b := make([]byte, maxPath+1)
	n, err := unix.Readlinkat(dir, name, b)
	if err != nil {
		return "", err
	}
	return string(b[:n]), nil
}

// at is a path to a name in an open directory for calls that take no descriptor of one.
func at(dir int, name string) string { return "/proc/self/fd/" + strconv.Itoa(dir) + "/" + name }

// xattrsOf returns the extended attributes of a name, in the order of the stream.
func xattrsOf(dir int, name string) ([]xattr, error) {
	var few [1024]byte
	list := few[:]
	n, err := listXattrs(dir, name, list)
	if err == unix.ERANGE {
		list = make([]byte, 64<<10) // the most that Linux lists
		n, err = listXattrs(dir, name, list)
	}
	if err == unix.ENOTSUP || err == nil && n == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("extended attributes: %w", err)
	}
	var all []xattr
	p := at(dir, name)
	value := make([]byte, 64<<10) // the most that Linux has
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00") {
		n, err := unix.Lgetxattr(p, name, value)
		if err == unix.ENODATA {
			continue // it was removed: the change shows in the inode's times
		}
		if err != nil {
			return nil, fmt.Errorf("extended attribute %s: %w", name, err)
		}
		all = append(all, xattr{name, string(value[:n])})
	}
	sortXattrs(all)
	return all, nil
}
