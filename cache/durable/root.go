package durable

import (
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// OpenRoot is the FS of a directory in which others may write as well: no name and no symbolic link
// leads out of it; links that stay in it are followed. It holds the directory open until Close, so that it is
// the same one also after it was renamed.
func OpenRoot(dir string) (FS, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return rootFS{root}, nil
}

type rootFS struct{ *os.Root }

func (r rootFS) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
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
