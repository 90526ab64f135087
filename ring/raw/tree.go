package raw

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

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
	in   durable.FS   // the same, for what is in it
	dirs []string     // of the part, in the order they were made
	top  []string     // what lies in the part, and nothing else in a directory that is replaced
	all  *wholeTree   // not nil: anything may lie in both, and top says nothing

	durable bool
	made    map[string]fs.FileInfo // what is in it, by paths
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

// old is the directory that is to be replaced, nil for none, or says why what is there cannot be.
func (t *Tree) old() (fs.FileInfo, error) {
	info, err := t.t.look(t.t.name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, t.t.fail("look at it", err)
	case info.Mode()&fs.ModeSymlink != 0:
		return nil, fmt.Errorf("output %s is a symbolic link", t.t.title)
	case !info.IsDir():
		return nil, fmt.Errorf("output %s is not a directory", t.t.title)
	}
	if t.all != nil {
		return info, t.replaceable()
	}
	names, err := t.t.fs.Names(t.t.name)
	if err != nil {
		return nil, t.t.fail("look into it", err)
	}
	for _, name := range names {
		if !slices.Contains(t.top, name) {
			return nil, errkind.Errorf("output-tree",
				"output %s: %s is in it, which would be lost", t.t.title, name)
		}
	}
	if !t.t.o.Overwrite {
		return nil, t.t.existsDir()
	}
	return info, nil
}

// ReadStanding reads a file of at most limit bytes in the directory that is there already.
func (t *Tree) ReadStanding(name string, limit int64) ([]byte, error) {
	d, err := t.t.fs.Sub(t.t.name)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	f, err := d.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && (!info.Mode().IsRegular() || info.Size() > limit) {
		err = fmt.Errorf("%s: no file of at most %d bytes", name, limit)
	}
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.NewSectionReader(f, 0, info.Size()))
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
	t.made = map[string]fs.FileInfo{}
	err := t.t.fs.Mkdir(t.t.temp, dirMode)
	if errors.Is(err, fs.ErrExist) {
		return t.t.busy()
	}
	if err != nil {
		return t.t.fail("part directory", err)
	}
	return t.enter()
}

// enter opens and locks the part directory that was just made. If another one has got its name meanwhile, that may be
// whoever's: then nothing is put there.
func (t *Tree) enter() (err error) {
	if t.in, err = t.t.fs.Sub(t.t.temp); err == nil {
		t.d, err = t.in.OpenFile(".", os.O_RDONLY, 0)
	}
	if err != nil {
		return errors.Join(t.t.fail("part directory", err), t.forget())
	}
	info, err := t.d.Stat()
	if err != nil || int(stat(info).Uid) != t.t.uid && !t.t.o.Shared {
		return errors.Join(t.t.foreign(), t.forget())
	}
	names, err := t.in.Names(".")
	if err != nil || len(names) > 0 || durable.TryLock(t.d) != nil || t.moved() != nil { // somebody took it for a left one
		return errors.Join(t.t.busy(), t.forget())
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
			if err := t.in.Mkdir(name[:i], dirMode); err != nil {
				return t.t.fail("make directory "+name[:i], err)
			}
			t.dirs = append(t.dirs, name[:i])
		}
	}
	f, err := t.in.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, partMode)
	if err != nil {
		return t.t.fail(name, err)
	}
	defer f.Close()
	if err := t.t.copyInto(ctx, durable.NewPart(f, 0), src, size); err != nil {
		return err
	}
	if err := t.finish(name, f, t.t.o.Mode.Perm()); err != nil {
		return t.t.fail(name, err)
	}
	return nil
}

// modeOfDirs lets those list a directory who may read the files in it.
func (t *Tree) modeOfDirs() fs.FileMode {
	mode := t.t.o.Mode.Perm()
	return mode | mode&0o444>>2
}

// finish gives a file or a directory its owner and mode, makes it durable, and notes what it is then.
func (t *Tree) finish(name string, f durable.File, mode fs.FileMode) (err error) {
	if err := t.dress(f, mode); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	t.made[name], err = f.Stat()
	return err
}

// dress gives a file or a directory its owner and mode.
func (t *Tree) dress(f durable.File, mode fs.FileMode) error {
	if o := t.t.o.Owner; o != nil {
		if err := f.Chown(o.UID, o.GID); err != nil {
			return err
		}
	}
	return f.Chmod(mode)
}

func (t *Tree) dressTop() error {
	if t.all != nil {
		top, err := dup(t.d)
		if err != nil {
			return err
		}
		defer top.Close()
		return t.all.dress(top)
	}
	return t.dress(t.d, t.modeOfDirs())
}

// Commit makes the part durable, not yet visible. Until Publish nobody else can go into it: what is in it stays what was
// put there, and its lock cannot be held by others.
func (t *Tree) Commit(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, dir := range slices.Backward(t.dirs) {
		d, err := t.in.OpenFile(dir, os.O_RDONLY, 0)
		if err != nil {
			return t.t.fail(dir, err)
		}
		err = t.finish(dir, d, t.modeOfDirs())
		d.Close()
		if err == nil {
			err = t.in.SyncDir(dir)
		}
		if err != nil {
			return t.t.fail(dir, err)
		}
	}
	if err := t.in.SyncDir("."); err != nil {
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
	if err := t.t.stays(wroteNothing); err != nil {
		return err
	}
	if err := t.t.setAside(t.d); err != nil {
		return err
	}
	if old != nil && t.all != nil && t.all.inPlace {
		return t.merge(old)
	}
	if t.made["."], err = t.d.Stat(); err == nil {
		err = t.dressTop()
	}
	if err != nil {
		return t.t.fail("mode and owner", err)
	}
	change := t.t.fs.RenameNew
	if old != nil {
		change = t.t.fs.Exchange
	}
	if err := change(t.t.temp, t.t.name); errors.Is(err, fs.ErrExist) {
		return t.t.existsDir()
	} else if old != nil && durable.NotSupported(err) {
		return t.cannotExchange()
	} else if err != nil {
		return t.t.fail("rename", err)
	}
	t.t.published = true
	if err := t.t.settle(t.d); err != nil {
		return err
	}
	if old != nil && t.all != nil {
		t.all.replaced = old
		t.seize(old)
	} else if old != nil {
		// The new one is in place and durable: what is left of the old one is no failure, and
		// goes with the next transfer or the daemon's next start.
		_ = t.t.removeDir(t.t.temp, old)
	}
	return nil
}

func (t *Tree) moved() error {
	return t.t.isAt(t.d)
}

// forget lets go of the part without removing it.
func (t *Tree) forget() (err error) {
	if t.d != nil {
		err = t.d.Close()
	}
	if t.in != nil {
		err = errors.Join(err, t.in.Close())
	}
	t.d, t.in = nil, nil
	return err
}

// Close ends the transfer: what was not published is removed, and with it the directories
// made for it.
func (t *Tree) Close() error {
	return errors.Join(t.Drop(), t.t.Close())
}

// Drop removes what was not published. Begin may follow.
func (t *Tree) Drop() (err error) {
	if t.d == nil {
		return nil
	}
	info, serr := t.d.Stat()
	switch {
	case t.all != nil && t.all.replaced != nil:
		// The new one is in place and durable: see Publish.
		_ = t.t.removeDir(t.t.temp, t.all.replaced)
		t.all.replaced = nil
	case !t.t.published && serr == nil && t.moved() == nil:
		if err = t.t.removeDir(t.t.temp, info); err != nil {
			err = t.t.fail("remove the part directory", err)
		}
	}
	return errors.Join(err, t.forget())
}
