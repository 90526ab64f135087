package durable

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// File is an open file.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Stat() (fs.FileInfo, error)
	Truncate(size int64) error
	Chmod(mode fs.FileMode) error
	Chown(uid, gid int) error
	Chtimes(atime, mtime time.Time) error
	// Sync makes the bytes durable. After an error some of them are lost, whatever another Sync says.
	Sync() error
}

// file is a File of the operating system.
type file struct{ *os.File }

// NewFile makes a File of one that the operating system has open.
func NewFile(f *os.File) File { return file{f} }

func (f file) Chtimes(atime, mtime time.Time) error {
	return control(f.File, func(fd int) error { return chtimes(fd, atime, mtime) })
}

// FS is every operation on one directory and on what lies below it. Names are slash-separated and relative to
// that directory, and "." is the directory itself. Every FileInfo has a *syscall.Stat_t.
type FS interface {
	// OpenFile is os.OpenFile. See Dir and OpenRoot for symbolic links.
	OpenFile(name string, flag int, perm fs.FileMode) (File, error)
	Mkdir(name string, perm fs.FileMode) error
	Lstat(name string) (fs.FileInfo, error)
	Remove(name string) error
	// RemoveAll removes a directory and what is in it. It follows no link.
	RemoveAll(name string) error
	// Link gives a file a second name. Its error wraps fs.ErrExist where that exists.
	Link(from, to string) error
	Rename(from, to string) error
	// RenameNew is Rename that fails if something is at to; its error then wraps fs.ErrExist. If the file system has
	// no such operation, NotSupported is true for the error.
	RenameNew(from, to string) error
	// Exchange gives each of two names what the other had, at once. For NotSupported see RenameNew.
	Exchange(a, b string) error
	// Sub is the FS of the directory under a name without a slash, and an error if that is a symbolic link. For OpenRoot
	// it stays the same directory after another one got its name.
	Sub(name string) (FS, error)
	// SyncDir makes the entries of a directory durable, but not what they name.
	SyncDir(name string) error
	// Names lists the entries of a directory.
	Names(dir string) ([]string, error)
	Close() error
}

// NotSupported reports whether err means that the file system has no RenameNew or Exchange. renameat2(2) has
// EINVAL for that.
func NotSupported(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, errors.ErrUnsupported)
}

// Dir is the FS of a directory that belongs to the caller: whoever can write in it is trusted, and symbolic
// links on the way to a name are followed, but OpenFile does not follow one under the name itself. The directory
// need not exist yet.
func Dir(path string) FS { return dirFS(path) }

type dirFS string

func (d dirFS) path(name string) string { return filepath.Join(string(d), name) }

// OpenFile spares the five system calls with which os.OpenFile finds out that a file on a disk cannot be polled.
func (d dirFS) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	for {
		fd, err := unix.Open(d.path(name), flag|unix.O_NOFOLLOW|unix.O_CLOEXEC, uint32(perm.Perm()))
		if err == nil {
			return file{os.NewFile(uintptr(fd), d.path(name))}, nil
		}
		if err != unix.EINTR {
			return nil, &fs.PathError{Op: "open", Path: d.path(name), Err: err}
		}
	}
}

func (d dirFS) Mkdir(name string, perm fs.FileMode) error { return os.Mkdir(d.path(name), perm) }
func (d dirFS) Lstat(name string) (fs.FileInfo, error)    { return os.Lstat(d.path(name)) }
func (d dirFS) Remove(name string) error                  { return os.Remove(d.path(name)) }
func (d dirFS) RemoveAll(name string) error               { return os.RemoveAll(d.path(name)) }
func (d dirFS) Link(from, to string) error                { return os.Link(d.path(from), d.path(to)) }
func (d dirFS) Rename(from, to string) error              { return os.Rename(d.path(from), d.path(to)) }

func (d dirFS) RenameNew(from, to string) error {
	return d.rename("rename", from, to, unix.RENAME_NOREPLACE)
}

func (d dirFS) Exchange(a, b string) error {
	return d.rename("exchange", a, b, unix.RENAME_EXCHANGE)
}

func (d dirFS) rename(op, from, to string, flags uint) error {
	err := retry(func() error {
		return unix.Renameat2(unix.AT_FDCWD, d.path(from), unix.AT_FDCWD, d.path(to), flags)
	})
	return linkError(op, from, to, err)
}

func linkError(op, from, to string, err error) error {
	if err == nil {
		return nil
	}
	return &os.LinkError{Op: op, Old: from, New: to, Err: err}
}

func (d dirFS) Sub(name string) (FS, error) {
	info, err := d.Lstat(name)
	if err == nil && !info.IsDir() {
		err = &fs.PathError{Op: "open", Path: d.path(name), Err: unix.ENOTDIR}
	}
	return dirFS(d.path(name)), err
}

func (d dirFS) SyncDir(name string) error {
	f, err := os.Open(d.path(name))
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

func (d dirFS) Names(dir string) ([]string, error) {
	f, err := os.Open(d.path(dir))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

func (d dirFS) Close() error { return nil }

// SameFile reports whether two FileInfos are of one inode.
func SameFile(a, b fs.FileInfo) bool {
	x, ok := a.Sys().(*syscall.Stat_t)
	y, ok2 := b.Sys().(*syscall.Stat_t)
	return ok && ok2 && x.Dev == y.Dev && x.Ino == y.Ino
}

// IsAt reports whether name still is the open file f. It returns false with every error.
func IsAt(fsys FS, f File, name string) (bool, error) {
	open, err := f.Stat()
	if err != nil {
		return false, err
	}
	named, err := fsys.Lstat(name)
	return err == nil && SameFile(open, named), err
}
