package crashfs

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"syscall"

	"github.com/dolly-img/dolly-img/cache/durable"
)

// OpenFile opens a file. Of the flags it knows O_CREATE, O_EXCL and O_TRUNC.
func (f *FS) OpenFile(name string, flag int, perm fs.FileMode) (durable.File, error) {
	if err := f.op("open", name); err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	dir, base, n, err := f.find(name)
	switch {
	case err != nil:
	case n == nil && flag&os.O_CREATE == 0:
		err = fs.ErrNotExist
	case n == nil:
		n = f.newNode(perm)
		dir.enter(base, n)
	case flag&os.O_EXCL != 0:
		err = fs.ErrExist
	case flag&os.O_TRUNC != 0:
		n.data = nil
		f.touch(n)
	}
	if err != nil {
		return nil, pathError("open", name, err)
	}
	return &handle{f, n, name}, nil
}

// Mkdir makes a directory.
func (f *FS) Mkdir(name string, perm fs.FileMode) error {
	if err := f.op("mkdir", name); err != nil {
		return err
	}
	defer f.mu.Unlock()
	dir, base, n, err := f.find(name)
	if err == nil && n != nil {
		err = fs.ErrExist
	}
	if err != nil {
		return pathError("mkdir", name, err)
	}
	dir.enter(base, f.newNode(fs.ModeDir|perm))
	return nil
}

// Lstat describes a file or directory. There are no symbolic links here.
func (f *FS) Lstat(name string) (fs.FileInfo, error) {
	if err := f.op("lstat", name); err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	_, _, n, err := f.find(name)
	if err == nil && n == nil {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, pathError("lstat", name, err)
	}
	return n.info(path.Base(name)), nil
}

// Remove removes a file or an empty directory.
func (f *FS) Remove(name string) error {
	if err := f.op("remove", name); err != nil {
		return err
	}
	defer f.mu.Unlock()
	dir, base, n, err := f.find(name)
	switch {
	case err != nil:
	case n == nil:
		err = fs.ErrNotExist
	case len(n.entries) > 0:
		err = syscall.ENOTEMPTY
	}
	if err != nil {
		return pathError("remove", name, err)
	}
	dir.enter(base, nil)
	n.nlink--
	return nil
}

// Link gives a file a second name.
func (f *FS) Link(from, to string) error {
	if err := f.op("link", from); err != nil {
		return err
	}
	defer f.mu.Unlock()
	_, _, n, err := f.find(from)
	dir, base, old, err2 := f.find(to)
	switch {
	case err != nil:
	case err2 != nil:
		err = err2
	case n == nil:
		err = fs.ErrNotExist
	case n.mode.IsDir():
		err = fs.ErrPermission
	case old != nil:
		err = fs.ErrExist
	}
	if err != nil {
		return pathError("link", from, err)
	}
	dir.enter(base, n)
	n.nlink++
	f.clock++
	n.ctime = f.clock
	return nil
}

// Rename gives a file another name, and replaces a file that has it.
func (f *FS) Rename(from, to string) error { return f.rename(from, to, false) }

// RenameNew does the same, but fails with fs.ErrExist if there is a file with that name.
func (f *FS) RenameNew(from, to string) error { return f.rename(from, to, true) }

func (f *FS) rename(from, to string, fresh bool) error {
	if err := f.op("rename", from); err != nil {
		return err
	}
	defer f.mu.Unlock()
	fromDir, fromBase, n, err := f.find(from)
	if err == nil && n == nil {
		err = fs.ErrNotExist
	}
	if err != nil {
		return pathError("rename", from, err)
	}
	toDir, toBase, old, err := f.find(to)
	switch {
	case err != nil:
	case old != nil && fresh:
		err = fs.ErrExist
	case old != nil && old.mode.IsDir():
		err = syscall.EISDIR
	}
	if err != nil {
		return pathError("rename", to, err)
	}
	if old != nil {
		old.nlink--
	}
	fromDir.enter(fromBase, nil)
	toDir.enter(toBase, n)
	f.clock++
	n.ctime = f.clock
	return nil
}

// Exchange gives each of two names of one directory what the other has. A power loss undoes
// both halves or neither, as in every file system that has such a call. The exchange makes durable what
// was done to the two names before.
func (f *FS) Exchange(a, b string) error {
	if err := f.op("exchange", a); err != nil {
		return err
	}
	defer f.mu.Unlock()
	dir, x, n, err := f.find(a)
	other, y, m, err2 := f.find(b)
	switch {
	case err == nil && err2 != nil:
		err = err2
	case err == nil && (n == nil || m == nil):
		err = fs.ErrNotExist
	case err == nil && dir != other:
		err = syscall.EXDEV
	}
	if err != nil {
		return pathError("exchange", a, err)
	}
	dir.entries[x], dir.entries[y] = m, n
	delete(dir.entriesLog, x)
	delete(dir.entriesLog, y)
	dir.exchanged = append(dir.exchanged, [2]string{x, y})
	return nil
}

// RemoveAll removes name and what is in it. Each removal is an operation of its own.
func (f *FS) RemoveAll(name string) error {
	info, err := f.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.IsDir() {
		names, err := f.Names(name)
		if err != nil {
			return err
		}
		for _, child := range names {
			if err := f.RemoveAll(path.Join(name, child)); err != nil {
				return err
			}
		}
	}
	return f.Remove(name)
}

// Sub returns the file system of a directory in f. It has the same disk, on which all operations are counted together.
func (f *FS) Sub(name string) (durable.FS, error) {
	if err := f.op("open", name); err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	_, _, n, err := f.find(name)
	switch {
	case err != nil:
	case n == nil:
		err = fs.ErrNotExist
	case !n.mode.IsDir():
		err = syscall.ENOTDIR
	}
	if err != nil {
		return nil, pathError("open", name, err)
	}
	return &FS{f.disk, n}, nil
}

// SyncDir makes the entries of a directory durable, but not the files that they name.
func (f *FS) SyncDir(name string) error {
	if err := f.op("syncdir", name); err != nil {
		return err
	}
	defer f.mu.Unlock()
	_, _, n, err := f.find(name)
	switch {
	case err != nil:
	case n == nil:
		err = fs.ErrNotExist
	case !n.mode.IsDir():
		err = syscall.ENOTDIR
	}
	if err != nil {
		return pathError("syncdir", name, err)
	}
	if !f.skipDirs {
		clear(n.entriesLog)
		n.exchanged = nil
	}
	return nil
}

// Names lists the names in a directory in alphabetical order.
func (f *FS) Names(name string) ([]string, error) {
	if err := f.op("readdir", name); err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	_, _, n, err := f.find(name)
	if err == nil && n == nil {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, pathError("readdir", name, err)
	}
	return slices.Sorted(maps.Keys(n.entries)), nil
}

// Close does nothing.
func (f *FS) Close() error { return nil }
