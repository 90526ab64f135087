package durable

import (
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// OpenRoot is the FS of a directory in which others may write as well: no name and no symbolic link
// leads out of it; links that stay in it are followed. It holds the directory open until Close, so that it is
// the same one also after it was renamed. The path to it may lead through symbolic links that only root, or the user of
// this process, can have made; others are an error that wraps ErrUntrustedLink.
func OpenRoot(dir string) (FS, error) {
	d, err := openPath(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	// Package os makes a Root of a path only, and follows all links on it. So this is how to know that it opened the same
	// directory, and the dot makes it fail where a named pipe is by now, for whose writer it would wait.
	root, err := os.OpenRoot(dir + "/.")
	if err != nil {
		return nil, err
	}
	return sameRoot(root, d)
}

type rootFS struct{ *os.Root }

func (r rootFS) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	f, err := r.Root.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err // not a nil *os.File in an interface
	}
	return file{f}, nil
}

// Sub opens the directory twice for the reason that OpenRoot has.
func (r rootFS) Sub(name string) (FS, error) {
	top, err := r.Root.Open(".")
	if err != nil {
		return nil, err
	}
	defer top.Close()
	d, err := openDirAt(top, name)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	defer d.Close()
	root, err := r.Root.OpenRoot(name + "/.")
	if err != nil {
		return nil, err
	}
	return sameRoot(root, d)
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
	return linkError("rename", from, to, r.rename(from, to, unix.RENAME_NOREPLACE))
}

func (r rootFS) Exchange(a, b string) error {
	return linkError("exchange", a, b, r.rename(a, b, unix.RENAME_EXCHANGE))
}

// rename opens the directories of both names: os.Root has no such call.
func (r rootFS) rename(from, to string, flags uint) error {
	fromDir, err := r.Root.Open(path.Dir(from))
	if err != nil {
		return err
	}
	defer fromDir.Close()
	toDir, err := r.Root.Open(path.Dir(to))
	if err != nil {
		return err
	}
	defer toDir.Close()
	return control(fromDir, func(fromFD int) error {
		return control(toDir, func(toFD int) error {
			return unix.Renameat2(fromFD, path.Base(from), toFD, path.Base(to), flags)
		})
	})
}

func (r rootFS) Names(dir string) ([]string, error) {
	d, err := r.Root.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}
