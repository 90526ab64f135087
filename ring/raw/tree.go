package raw

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/cache/durable"
	"github.com/dolly-img/dolly-img/ring/errkind"
)

// Tree is a directory that a node makes of local files, all of it at once: Begin and Put
// fill it under the part's name, Commit makes it durable, and Publish switches. A
// directory that is there already is replaced only where nothing is in it but what this
// one has as well.
type Tree struct {
	t    *Target
	d    durable.File // the part directory, locked; nil: none
	dirs []string     // of the part, in the order they were made
	top  []string     // what lies in the part, and nothing else in a directory that is replaced

	durable bool
}

// NewTree checks the names and opens Dir; Close frees it. The options are of the
// directory, mode and owner of every file in it; whoever may read the files may list the
// directories. Entries are the names that will be in it.
func NewTree(o TargetOptions, entries []string) (*Tree, error) {
	t, err := NewTarget(o)
	if err != nil {
		return nil, err
	}
	return &Tree{t: t, top: entries}, nil
}

// Check refuses what could not be published, and tells the free bytes, -1 unknown.
func (t *Tree) Check() (free int64, err error) {
	if free, err = t.t.freeSpace(); err != nil {
		return 0, err
	}
	_, err = t.old()
	return free, err
}

// old says whether there is a directory to be replaced, or why what is there cannot be.
func (t *Tree) old() (bool, error) {
	info, err := t.t.fs.Lstat(t.t.name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, t.t.fail("look at it", err)
	case info.Mode()&fs.ModeSymlink != 0:
		return false, fmt.Errorf("output %s is a symbolic link", t.t.title)
	case !info.IsDir():
		return false, fmt.Errorf("output %s is not a directory", t.t.title)
	}
	names, err := t.t.fs.Names(t.t.name)
	if err != nil {
		return false, t.t.fail("look into it", err)
	}
	for _, name := range names {
		if !slices.Contains(t.top, name) {
			return false, errkind.Errorf("output-tree",
				"output %s: %s is in it, which would be lost", t.t.title, name)
		}
	}
	if !t.t.o.Overwrite {
		return false, t.t.exists()
	}
	return true, nil
}

// Begin makes the empty part directory, in the place of one that nobody fills.
func (t *Tree) Begin(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := t.t.mkdirs(); err != nil {
		return err
	}
	if err := t.t.dropTree(); err != nil {
		return err
	}
	err := t.t.fs.Mkdir(t.t.temp, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return t.t.busy()
	}
	if err == nil {
		t.d, err = t.t.fs.OpenFile(t.t.temp, os.O_RDONLY, 0)
	}
	if err != nil {
		return t.t.fail("part directory", err)
	}
	if durable.TryLock(t.d) != nil || t.moved() != nil { // between the two calls somebody took it for a left one
		return errors.Join(t.t.busy(), t.forget())
	}
	return nil
}

// dropTree removes what lies under the part's name, unless somebody has it locked or it is
// another's.
func (t *Target) dropTree() error {
	info, err := t.fs.Lstat(t.temp)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return t.fail("part", err)
	}
	if !info.IsDir() && !info.Mode().IsRegular() || int(info.Sys().(*syscall.Stat_t).Uid) != t.uid {
		return t.foreign()
	}
	f, err := t.fs.OpenFile(t.temp, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return t.fail("part", err)
	}
	defer f.Close()
	if durable.TryLock(f) != nil {
		return t.busy()
	}
	opened, err := f.Stat()
	if err != nil || !durable.SameFile(opened, info) {
		return t.busy()
	}
	if err := t.fs.RemoveAll(t.temp); err != nil {
		return t.fail("remove what an earlier transfer left", err)
	}
	return nil
}

// Put makes the file name, slash-separated, of the first size bytes of src, sharing its
// blocks where the file system can. It does not verify what it copies.
func (t *Tree) Put(ctx context.Context, name string, src io.ReaderAt, size int64) error {
	if !fs.ValidPath(name) || !slices.Contains(t.top, strings.SplitN(name, "/", 2)[0]) {
		return fmt.Errorf("output %s: no name for a file in it: %q", t.t.title, name)
	}
	if t.d == nil || t.durable {
		return fmt.Errorf("output %s: %s comes before or after its time", t.t.title, name)
	}
	for i, c := range name {
		if c == '/' && !slices.Contains(t.dirs, name[:i]) {
			if err := t.t.fs.Mkdir(path.Join(t.t.temp, name[:i]), 0o700); err != nil {
				return t.t.fail("make directory "+name[:i], err)
			}
			t.dirs = append(t.dirs, name[:i])
		}
	}
	f, err := t.t.fs.OpenFile(path.Join(t.t.temp, name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return t.t.fail(name, err)
	}
	defer f.Close()
	if err := t.t.copyInto(ctx, durable.NewPart(f, 0), src, size); err != nil {
		return err
	}
	if err := t.finish(f, t.t.o.Mode.Perm()); err != nil {
		return t.t.fail(name, err)
	}
	return nil
}

// finish gives a file or a directory its owner and mode, and makes it durable.
func (t *Tree) finish(f durable.File, mode fs.FileMode) error {
	if o := t.t.o.Owner; o != nil {
		if err := f.Chown(o.UID, o.GID); err != nil {
			return err
		}
	}
	if err := f.Chmod(mode); err != nil {
		return err
	}
	return f.Sync()
}

// Commit makes the part durable, not yet visible.
func (t *Tree) Commit(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	mode := t.t.o.Mode.Perm()
	mode |= mode & 0o444 >> 2
	for _, dir := range slices.Backward(t.dirs) {
		d, err := t.t.fs.OpenFile(path.Join(t.t.temp, dir), os.O_RDONLY, 0)
		if err != nil {
			return t.t.fail(dir, err)
		}
		err = t.finish(d, mode)
		d.Close()
		if err == nil {
			err = t.t.fs.SyncDir(path.Join(t.t.temp, dir))
		}
		if err != nil {
			return t.t.fail(dir, err)
		}
	}
	err := t.finish(t.d, mode)
	if err == nil {
		err = t.t.fs.SyncDir(t.t.temp)
	}
	if err != nil {
		return t.t.fail("make durable", err)
	}
	t.durable = true
	return nil
}

// Publish gives the part its final name, durably; what was there before is removed then.
// The old directory is whole until that moment, and stays on any error before it.
func (t *Tree) Publish(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if t.d == nil || !t.durable || t.t.published {
		return fmt.Errorf("output %s: nothing to publish", t.t.title)
	}
	if err := t.moved(); err != nil {
		return err
	}
	old, err := t.old()
	if err != nil {
		return err
	}
	change := t.t.fs.RenameNew
	if old {
		change = t.t.fs.Exchange
	}
	if err := change(t.t.temp, t.t.name); errors.Is(err, fs.ErrExist) {
		return t.t.exists()
	} else if old && durable.NotSupported(err) {
		return errkind.Errorf("output-exchange", "output %s: this file system cannot switch directories", t.t.title)
	} else if err != nil {
		return t.t.fail("rename", err)
	}
	t.t.published = true
	if err := t.t.fs.SyncDir(t.t.dir); err != nil {
		return t.t.fail("make the name durable", err)
	}
	if old {
		// The new one is in place and durable: what is left of the old one is no failure, and
		// goes with the next transfer or the daemon's next start.
		_ = t.t.fs.RemoveAll(t.t.temp)
	}
	return nil
}

func (t *Tree) moved() error {
	return t.t.isAt(t.d)
}

// forget lets go of the part without removing it.
func (t *Tree) forget() error {
	err := t.d.Close()
	t.d = nil
	return err
}

// Close ends the transfer: what was not published is removed, and with it the directories
// made for it.
func (t *Tree) Close() error {
	var err error
	if t.d != nil {
		if !t.t.published && t.moved() == nil {
			if err = t.t.fs.RemoveAll(t.t.temp); err != nil {
				err = t.t.fail("remove the part directory", err)
			}
		}
		err = errors.Join(err, t.forget())
	}
	return errors.Join(err, t.t.Close())
}
