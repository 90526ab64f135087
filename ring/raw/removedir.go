package raw

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/cache/durable"
)

// removeDir removes what info describes under a name, and leaves whatever else has got that name.
func (t *Target) removeDir(name string, info fs.FileInfo) error {
	if !info.IsDir() {
		return t.fs.Remove(name)
	}
	if err := t.nothingMounted(name); err != nil {
		return err
	}
	// If it is of a transfer that only seems dead, that one must not give it a final name half removed.
	aside := asideName()
	if err := t.fs.Rename(name, aside); err != nil {
		return err
	}
	d, err := t.fs.Sub(aside)
	if err != nil {
		return err
	}
	defer d.Close()
	opened, err := d.Lstat(".")
	if err != nil {
		return err
	}
	if !durable.SameFile(opened, info) {
		return errMoved
	}
	if err = empty(d); errors.Is(err, fs.ErrPermission) {
		if err = unlock(d); err == nil {
			err = empty(d)
		}
	}
	if err != nil {
		return err
	}
	return t.fs.Remove(aside)
}

// empty removes all that is in a directory.
func empty(d durable.FS) error {
	names, err := d.Names(".")
	for _, name := range names {
		if err == nil {
			err = d.RemoveAll(name)
		}
	}
	return err
}

// unlock lets the owner of a directory, who is not root, remove what is in it and in those below: their modes may keep him
// from it. What cannot be changed is left for the removal to report.
func unlock(d durable.FS) error {
	f, err := d.OpenFile(".", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if at, ok := f.(descriptor); ok { // a file system of a test has none
		return unlockAt(int(at.Fd()), ".")
	}
	return nil
}

// unlockAt does it for the directory under a name, if it is one. It follows no link.
func unlockAt(at int, name string) error {
	const flags = unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(at, name, unix.O_PATH|flags, 0)
	if err == unix.ENOTDIR || err == unix.ELOOP {
		return nil
	}
	if err != nil {
		return err
	}
	// A directory that may not be read can be opened only in this way, of which fchmod(2) wants nothing to know.
	_ = unix.Chmod("/proc/self/fd/"+strconv.Itoa(fd), uint32(dirMode))
	readable, err := unix.Openat(fd, ".", unix.O_RDONLY|flags, 0)
	unix.Close(fd)
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(readable), name)
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(1024)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := unlockAt(readable, name); err != nil {
				return err
			}
		}
	}
}
