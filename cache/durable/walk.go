package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrUntrustedLink is part of the error of a path that leads through a symbolic link which another user may have made.
var ErrUntrustedLink = errors.New("is a symbolic link that is not root's, or lies where others may write")

// ErrExchanged is part of the error of a directory that became another one while it was opened.
var ErrExchanged = errors.New("was exchanged for another directory")

// maxLinks is how many symbolic links a path may lead through, as in path_resolution(7).
const maxLinks = 40

// openPath opens a directory one name after another, so that nothing decides where the path leads but the directories
// that it was walked through. It follows a symbolic link only if root, or the user of this process, owns it and is
// the only one who may write to the directory that it lies in: nobody else can have made it.
func openPath(path string) (*os.File, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	at, err := os.Open("/")
	if err != nil {
		return nil, err
	}
	names, links := strings.Split(path, "/"), 0
	for len(names) > 0 {
		name := names[0]
		names = names[1:]
		if name == "" || name == "." {
			continue
		}
		next, err := openDirAt(at, name)
		if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			var target string
			if target, err = readTrustedLink(at, name); err == nil {
				if links++; links > maxLinks {
					err = unix.ELOOP
				}
				names = append(strings.Split(target, "/"), names...)
			}
			if err == nil && !filepath.IsAbs(target) {
				continue
			}
			if err == nil {
				next, err = os.Open("/")
			}
		}
		there := filepath.Join(at.Name(), name)
		at.Close()
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: there, Err: err}
		}
		at = next
	}
	return at, nil
}

// openDirAt opens a directory by one name, and follows no link.
func openDirAt(dir *os.File, name string) (opened *os.File, err error) {
	err = control(dir, func(at int) error {
		const flags = unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
		fd, err := unix.Openat(at, name, unix.O_RDONLY|flags, 0)
		if err == unix.EACCES { // Whoever may not read a directory may still go through it.
			fd, err = unix.Openat(at, name, unix.O_PATH|flags, 0)
		}
		if err == nil {
			opened = os.NewFile(uintptr(fd), filepath.Join(dir.Name(), name))
		}
		return err
	})
	return opened, err
}

// readTrustedLink returns where a symbolic link leads that openPath may follow. Its error is ENOTDIR if there is no link.
func readTrustedLink(dir *os.File, name string) (target string, err error) {
	err = control(dir, func(at int) error {
		link, err := unix.Openat(at, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(link)
		var of, parent unix.Stat_t
		if err := errors.Join(unix.Fstat(link, &of), unix.Fstat(at, &parent)); err != nil {
			return err
		}
		if of.Mode&unix.S_IFMT != unix.S_IFLNK {
			return unix.ENOTDIR
		}
		if !trusted(of.Uid) || !trusted(parent.Uid) || parent.Mode&0o022 != 0 {
			return ErrUntrustedLink
		}
		b := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(link, "", b)
		target = string(b[:max(n, 0)])
		return err
	})
	return target, err
}

func trusted(uid uint32) bool { return uid == 0 || int(uid) == os.Geteuid() }

// sameRoot returns root if it is the directory that is open as d, and otherwise closes it.
func sameRoot(root *os.Root, d *os.File) (FS, error) {
	opened, err := root.Lstat(".")
	walked, werr := d.Stat()
	if err = errors.Join(err, werr); err == nil && !SameFile(opened, walked) {
		err = fmt.Errorf("%s %w", d.Name(), ErrExchanged)
	}
	if err != nil {
		root.Close()
		return nil, err
	}
	return rootFS{root}, nil
}
