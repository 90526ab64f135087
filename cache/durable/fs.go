package durable

import (
	"crypto/rand"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// File is an open file. It is an alias, as the test that takes the power away
// (ringtest/crashfs) names the same type without importing this package.
type File = interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Stat() (fs.FileInfo, error)
	Truncate(size int64) error
	Chmod(mode fs.FileMode) error
	Chown(uid, gid int) error
	Sync() error
}

// FS is every file operation inside the cache directory, to which its
// slash-separated names are relative.
type FS interface {
	OpenFile(name string, flag int, perm fs.FileMode) (File, error)
	Mkdir(name string, perm fs.FileMode) error
	Lstat(name string) (fs.FileInfo, error)
	Remove(name string) error
	Rename(from, to string) error
	// RenameNew is Rename that leaves alone what is at to; its error wraps
	// fs.ErrExist then, or says that the file system has no such thing.
	RenameNew(from, to string) error
	Chtimes(name string, atime, mtime time.Time) error
	// SyncDir makes the entries of a directory durable.
	SyncDir(name string) error
	// Names lists the entries of a directory.
	Names(dir string) ([]string, error)
}

// Dir is FS below a directory that belongs to the cache alone.
type Dir string

func (d Dir) path(name string) string { return filepath.Join(string(d), name) }

// OpenFile spares the five system calls with which os.OpenFile finds out that a
// file on a disk cannot be polled.
func (d Dir) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	for {
		fd, err := unix.Open(d.path(name), flag|unix.O_NOFOLLOW|unix.O_CLOEXEC, uint32(perm.Perm()))
		if err == nil {
			return os.NewFile(uintptr(fd), d.path(name)), nil
		}
		if err != unix.EINTR {
			return nil, &fs.PathError{Op: "open", Path: d.path(name), Err: err}
		}
	}
}

func (d Dir) RenameNew(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, d.path(from), unix.AT_FDCWD, d.path(to), unix.RENAME_NOREPLACE)
	if err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

func (d Dir) Mkdir(name string, perm fs.FileMode) error { return os.Mkdir(d.path(name), perm) }
func (d Dir) Lstat(name string) (fs.FileInfo, error)    { return os.Lstat(d.path(name)) }
func (d Dir) Remove(name string) error                  { return os.Remove(d.path(name)) }
func (d Dir) Rename(from, to string) error              { return os.Rename(d.path(from), d.path(to)) }

func (d Dir) Chtimes(name string, atime, mtime time.Time) error {
	return os.Chtimes(d.path(name), atime, mtime)
}

func (d Dir) SyncDir(name string) error {
	f, err := os.Open(d.path(name))
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

func (d Dir) Names(dir string) ([]string, error) {
	f, err := os.Open(d.path(dir))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

// CreateLocked makes a file of a random name in dir whose lock says that its
// maker lives.
func CreateLocked(fsys FS, dir string, perm fs.FileMode) (File, string, error) {
	for range 5 {
		name := path.Join(dir, rand.Text())
		f, err := fsys.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, perm)
		if err != nil {
			return nil, "", err
		}
		// Between the two calls another process may have taken it for one that
		// was left behind.
		err = TryLock(f)
		if err == nil && IsAt(fsys, f, name) {
			return f, name, nil
		}
		f.Close()
		if err != nil && !IsLocked(err) {
			fsys.Remove(name)
			return nil, "", fmt.Errorf("lock %s: %w", name, err)
		}
	}
	return nil, "", fmt.Errorf("%s: cannot keep a new file there", dir)
}

// IsAt says whether name still is the open f.
func IsAt(fsys FS, f File, name string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := fsys.Lstat(name)
	return err == nil && a.Sys().(*syscall.Stat_t).Ino == b.Sys().(*syscall.Stat_t).Ino
}
