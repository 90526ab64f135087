package raw

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/cache/durable"
)

// A node records what it has placed, so that the next transfer need not bring it again. Others may exchange what is at
// the path of an output at any time. Therefore a record is made of the files that were open while their bytes
// came, and is compared with what the path leads to now, one directory after another and through no link.

// reach opens the directory of the target anew by its path, and not the one that is written to. Whoever calls leave is
// done with it. If there is no such directory, the error wraps fs.ErrNotExist.
func (t *Target) reach() (at durable.FS, leave func(), err error) {
	top, err := t.open()
	if err != nil {
		return nil, nil, err
	}
	at, depth, err := t.down(top)
	if err != nil {
		top.Close()
		return nil, nil, err
	}
	leave = func() {
		if depth > 0 {
			at.Close()
		}
		top.Close()
	}
	if depth < len(t.dirs) {
		leave()
		return nil, nil, t.fail("look at it", fs.ErrNotExist)
	}
	return at, leave, nil
}

// Standing describes the regular file that has the final name now.
func (t *Target) Standing() (fs.FileInfo, error) {
	at, leave, err := t.reach()
	if err != nil {
		return nil, err
	}
	defer leave()
	return t.standing(at, t.name)
}

func (t *Target) standing(at durable.FS, name string) (fs.FileInfo, error) {
	info, err := at.Lstat(name)
	if err != nil {
		return nil, t.fail("look at it", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("output %s: %s is not a regular file", t.title, name)
	}
	return info, nil
}

// OpenStanding opens the regular file that has the final name now, and describes the file that it has opened.
func (t *Target) OpenStanding() (durable.File, fs.FileInfo, error) {
	at, leave, err := t.reach()
	if err != nil {
		return nil, nil, err
	}
	defer leave()
	if _, err := t.standing(at, t.name); err != nil { // to open a device or a pipe may do something
		return nil, nil, err
	}
	f, err := at.OpenFile(t.name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, t.fail("open", err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, nil, t.fail("open", err)
	}
	return f, info, nil
}

// Placed describes what Publish gave the final name, whatever has that name since. It is an error if somebody else
// may have written to it.
func (t *Target) Placed() (fs.FileInfo, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f, was, at := durable.File(nil), fs.FileInfo(nil), time.Time{}
	switch {
	case !t.published:
		return nil, fmt.Errorf("output %s: not published", t.title)
	case t.part != nil:
		f, was, at = t.part.File, t.complete, t.complete.ModTime()
	default:
		f, was, at = t.existing.f, t.existing.info, t.dates(t.existing)
	}
	info, err := f.Stat()
	if err == nil && (info.Size() != was.Size() || !info.ModTime().Equal(at)) {
		err = errReplaced
	}
	if err != nil {
		return nil, t.fail("look at it again", err)
	}
	return info, nil
}

// Device tells the file system of the output: that of its directory, or of the last one on the way that is there.
func (t *Target) Device() (dev uint64, err error) {
	info, err := t.fs.Lstat(".")
	if err != nil {
		return 0, t.fail("look at its directory", err)
	}
	return stat(info).Dev, nil
}

// Device is that of Target.
func (t *Tree) Device() (dev uint64, err error) { return t.t.Device() }

// Standing describes a file right below the directory that has the final name now.
func (t *Tree) Standing(name string) (info fs.FileInfo, err error) {
	err = t.inside(func(in durable.FS) error {
		info, err = t.t.standing(in, name)
		return err
	})
	return info, err
}

// inside calls look for the directory that has the final name now.
func (t *Tree) inside(look func(in durable.FS) error) error {
	at, leave, err := t.t.reach()
	if err != nil {
		return err
	}
	defer leave()
	in, err := at.Sub(t.t.name)
	if err != nil {
		return t.t.fail("look into it", err)
	}
	defer in.Close()
	return look(in)
}

// Look describes these files of the directory that has the final name now, and the directories that they are in, by
// their paths; "." is the whole. It is an error if one is missing, or if anything else is there. However much that
// is, Look looks at no more than it was asked for.
func (t *Tree) Look(files []string) (all map[string]fs.FileInfo, err error) {
	below := map[string]map[string]bool{} // of each directory, what is in it and whether that is a directory
	for _, file := range files {
		for name, dir := file, false; name != "."; name, dir = path.Dir(name), true {
			parent := path.Dir(name)
			if below[parent] == nil {
				below[parent] = map[string]bool{}
			}
			below[parent][path.Base(name)] = dir
		}
	}
	all = map[string]fs.FileInfo{}
	err = t.inside(func(in durable.FS) error { return t.look(in, ".", below, all) })
	return all, err
}

func (t *Tree) look(in durable.FS, dir string, below map[string]map[string]bool, all map[string]fs.FileInfo) error {
	info, err := in.Lstat(".")
	if err != nil {
		return t.t.fail(dir, err)
	}
	all[dir] = info
	if more, err := durable.HoldsMore(in, len(below[dir])); err != nil {
		return t.t.fail(dir, err)
	} else if more {
		return fmt.Errorf("output %s: %s has more in it than was placed", t.t.title, dir)
	}
	for name, isDir := range below[dir] {
		there := path.Join(dir, name)
		if !isDir {
			info, err := t.t.standing(in, name)
			if err != nil {
				return err
			}
			all[there] = info
			continue
		}
		sub, err := in.Sub(name)
		if err != nil {
			return t.t.fail(there, err)
		}
		err = t.look(sub, there, below, all)
		sub.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// Placed describes what Publish gave the final name, as Look does: the files as they were when they were complete and
// nobody else could reach them.
func (t *Tree) Placed() (map[string]fs.FileInfo, error) {
	if !t.t.published {
		return nil, fmt.Errorf("output %s: not published", t.t.title)
	}
	return t.made, nil
}
