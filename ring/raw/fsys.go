package raw

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// file is an open file. It is an alias, as the test that takes the power away
// (ringtest/crashfs) names the same type without importing this package.
type file = interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Stat() (fs.FileInfo, error)
	Truncate(size int64) error
	Chmod(mode fs.FileMode) error
	Chown(uid, gid int) error
	Sync() error
}

// fsys is every file operation of a Target. Names are slash-separated and
// relative to the one directory that policy allows.
type fsys interface {
	OpenFile(name string, flag int, perm fs.FileMode) (file, error)
	Mkdir(name string, perm fs.FileMode) error
	Lstat(name string) (fs.FileInfo, error)
	Remove(name string) error
	Rename(from, to string) error
	// RenameNew is Rename that fails with fs.ErrExist where to exists; both are
	// in one directory.
	RenameNew(from, to string) error
	// Exchange gives each of two names in one directory what the other had, at once.
	Exchange(a, b string) error
	// RemoveAll removes a directory and what is in it; no link is followed.
	RemoveAll(name string) error
	// Names lists the entries of a directory.
	Names(dir string) ([]string, error)
	Chtimes(name string, atime, mtime time.Time) error
	// SyncDir makes the entries of a directory durable.
	SyncDir(name string) error
	Close() error
}

// rootFS is fsys below an os.Root: no name and no symbolic link leads out of it.
type rootFS struct{ *os.Root }

func (r rootFS) OpenFile(name string, flag int, perm fs.FileMode) (file, error) {
	f, err := r.Root.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err // not a nil *os.File in an interface
	}
	return f, nil
}

func (r rootFS) SyncDir(name string) error {
	d, err := r.Root.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func (r rootFS) RenameNew(from, to string) error {
	d, err := r.Root.Open(path.Dir(to))
	if err != nil {
		return err
	}
	defer d.Close()
	err = control(d, func(fd int) error {
		return unix.Renameat2(fd, path.Base(from), fd, path.Base(to), unix.RENAME_NOREPLACE)
	})
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // not on this file system
		if err = r.Root.Link(from, to); err == nil {
			err = r.Root.Remove(from)
		}
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

func (r rootFS) Exchange(a, b string) error {
	d, err := r.Root.Open(path.Dir(a))
	if err != nil {
		return err
	}
	defer d.Close()
	err = control(d, func(fd int) error {
		return unix.Renameat2(fd, path.Base(a), fd, path.Base(b), unix.RENAME_EXCHANGE)
	})
	if err != nil {
		return &os.LinkError{Op: "exchange", Old: a, New: b, Err: err}
	}
	return nil
}

func (r rootFS) Names(dir string) ([]string, error) {
	d, err := r.Root.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

// sameFile says whether two FileInfos are of one inode.
func sameFile(a, b fs.FileInfo) bool {
	x, ok := a.Sys().(*syscall.Stat_t)
	y, ok2 := b.Sys().(*syscall.Stat_t)
	return ok && ok2 && x.Dev == y.Dev && x.Ino == y.Ino
}
