package cache

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
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

// fsys is every file operation inside the cache directory, to which its
// slash-separated names are relative.
type fsys interface {
	OpenFile(name string, flag int, perm fs.FileMode) (file, error)
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

// dirFS is fsys below a directory that belongs to the cache alone.
type dirFS string

func (d dirFS) path(name string) string { return filepath.Join(string(d), name) }

// OpenFile spares the five system calls with which os.OpenFile finds out that a
// file on a disk cannot be polled.
func (d dirFS) OpenFile(name string, flag int, perm fs.FileMode) (file, error) {
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

func (d dirFS) RenameNew(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, d.path(from), unix.AT_FDCWD, d.path(to), unix.RENAME_NOREPLACE)
	if err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

func (d dirFS) Mkdir(name string, perm fs.FileMode) error { return os.Mkdir(d.path(name), perm) }
func (d dirFS) Lstat(name string) (fs.FileInfo, error)    { return os.Lstat(d.path(name)) }
func (d dirFS) Remove(name string) error                  { return os.Remove(d.path(name)) }
func (d dirFS) Rename(from, to string) error              { return os.Rename(d.path(from), d.path(to)) }

func (d dirFS) Chtimes(name string, atime, mtime time.Time) error {
	return os.Chtimes(d.path(name), atime, mtime)
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

// createLocked makes a file of a random name in dir whose lock says that its
// maker lives.
func createLocked(fsys fsys, dir string) (file, string, error) {
	for range 5 {
		name := path.Join(dir, rand.Text())
		f, err := fsys.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, lockMode)
		if err != nil {
			return nil, "", err
		}
		// Between the two calls another process may have taken it for one that
		// was left behind.
		err = tryLock(f)
		if err == nil && isAt(fsys, f, name) {
			return f, name, nil
		}
		f.Close()
		if err != nil && !isLocked(err) {
			fsys.Remove(name)
			return nil, "", fmt.Errorf("lock %s: %w", name, err)
		}
	}
	return nil, "", fmt.Errorf("%s: cannot keep a new file there", dir)
}

// isAt says whether name still is the open f.
func isAt(fsys fsys, f file, name string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := fsys.Lstat(name)
	return err == nil && stat(a).Ino == stat(b).Ino
}

func stat(info fs.FileInfo) *syscall.Stat_t { return info.Sys().(*syscall.Stat_t) }

// sweep removes the files in dir whose makers are gone: of a part, whose name is
// that of a lease and a number, its transfer, of any other file who made it.
func sweep(fsys fsys, dir string) error {
	names, err := fsys.Names(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		owner, _, isPart := strings.Cut(name, ".")
		name = path.Join(dir, name)
		if isPart {
			if err := sweepPart(fsys, name, "leases/"+owner); err != nil {
				return err
			}
			continue
		}
		f, err := fsys.OpenFile(name, os.O_RDWR, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		err = tryLock(f)
		if err == nil && isAt(fsys, f, name) {
			err = fsys.Remove(name)
		}
		f.Close()
		if err != nil && !isLocked(err) {
			return err
		}
	}
	return nil
}

func sweepPart(fsys fsys, name, lease string) error {
	f, err := fsys.OpenFile(lease, os.O_RDONLY, 0)
	if err == nil {
		err = tryLock(f)
		defer f.Close()
		if isLocked(err) {
			return nil
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := leave(fsys, name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// replace puts data under name, durably and at once: a reader, or a power loss,
// meets the old file or the new one.
func (c *Cache) replace(name string, data []byte) error {
	f, temp, err := createLocked(c.fs, "ingest")
	if err != nil {
		return err
	}
	defer f.Close()
	var info fs.FileInfo
	if _, err = f.WriteAt(data, 0); err == nil {
		info, err = f.Stat()
	}
	if err == nil {
		err = c.access.apply(f, info, 0o644)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = c.fs.Rename(temp, name)
	}
	if err != nil {
		c.fs.Remove(temp)
		return err
	}
	return c.fs.SyncDir(path.Dir(name))
}

// readFile reads all of a file of at most limit bytes.
func readFile(fsys fsys, name string, limit int64) ([]byte, error) {
	f, err := fsys.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, 0, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s is larger than %d bytes", name, limit)
	}
	return b, err
}
