package raw

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"syscall"

	"github.com/dolly-img/dolly-img/cache/durable"
	"github.com/dolly-img/dolly-img/ring/errkind"
)

// Other users may own directories between the one that policy permits and the file, and may exchange them at any time
// for others, or for links to others, of which nobody would let them write to. Therefore the path is walked once, one
// directory after another and through no link, and all that is done is done in the last one, by names without a
// slash. Before and after the file gets its name, the path is walked again, and must lead to the same directory.

// walk opens the directory of the target, or the last one on the way to it that exists if the rest may be made.
func (t *Target) walk() error {
	at, depth, err := t.down(t.top)
	if err != nil {
		return err
	}
	t.leave()
	t.fs, t.depth = at, depth
	return nil
}

// leave closes the directory that walk opened.
func (t *Target) leave() {
	if t.depth > 0 && t.fs != t.above {
		t.fs.Close()
	}
	t.fs, t.depth = t.top, 0
}

// missing says that the directory of the target does not exist.
func (t *Target) missing() bool { return t.depth < len(t.dirs) }

// down opens one directory after another, from the permitted one on, as far as they exist. Depth says how many those
// are; at is top for none, and otherwise to be closed.
func (t *Target) down(top durable.FS) (at durable.FS, depth int, err error) {
	at = top
	for depth < len(t.dirs) {
		next, err := at.Sub(t.dirs[depth])
		if errors.Is(err, fs.ErrNotExist) && t.o.Mkdir {
			break
		}
		if err != nil {
			err = t.noParent(at, depth, err)
		}
		if depth > 0 {
			at.Close()
		}
		if err != nil {
			return nil, 0, err
		}
		at, depth = next, depth+1
	}
	return at, depth, nil
}

// noParent says why a directory on the way could not be opened.
func (t *Target) noParent(at durable.FS, depth int, err error) error {
	there := path.Join(t.o.Dir, path.Join(t.dirs[:depth+1]...))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errkind.Errorf("output-parent", "output %s: directory %s does not exist", t.title, there)
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ELOOP):
		what := "not a directory"
		if info, serr := at.Lstat(t.dirs[depth]); serr == nil && info.Mode()&fs.ModeSymlink != 0 {
			what = "a symbolic link"
		}
		return fmt.Errorf("output %s: %s is %s", t.title, there, what)
	}
	return t.fail("directory "+there, err)
}

// madeDir is a directory below above: the first one that Begin made, or one below that.
type madeDir struct {
	name string
	info fs.FileInfo
	mine bool // and another transfer did not make it
}

// mkdirs makes the missing directories of the target, each entry durable.
func (t *Target) mkdirs() error {
	if err := t.walk(); err != nil {
		return err
	}
	for t.missing() {
		name := t.dirs[t.depth]
		err := t.fs.Mkdir(name, 0o755)
		mine := err == nil
		if mine && t.above == nil {
			t.above = t.fs
		}
		if err == nil || errors.Is(err, fs.ErrExist) {
			err = t.fs.SyncDir(".")
		}
		if err != nil {
			return t.fail("make directory", err)
		}
		next, err := t.fs.Sub(name)
		if err != nil {
			return t.noParent(t.fs, t.depth, err)
		}
		if info, err := next.Lstat("."); t.above != nil && err == nil {
			t.made = append(t.made, madeDir{name, info, mine})
		}
		depth := t.depth + 1
		t.leave()
		t.fs, t.depth = next, depth
	}
	return nil
}

// unmake removes the directories that mkdirs made, unless somebody put something there, or something else in their place.
func (t *Target) unmake() {
	unmake(t.above, t.made)
	t.made = nil
}

func unmake(at durable.FS, made []madeDir) {
	if len(made) == 0 {
		return
	}
	dir, err := at.Sub(made[0].name)
	if err != nil {
		return
	}
	defer dir.Close()
	if info, err := dir.Lstat("."); err != nil || !durable.SameFile(info, made[0].info) {
		return
	}
	unmake(dir, made[1:])
	if made[0].mine {
		at.Remove(made[0].name)
	}
}

// closeDirs closes every directory of the target.
func (t *Target) closeDirs() error {
	t.leave()
	if t.above != nil && t.above != t.top {
		t.above.Close()
	}
	return t.top.Close()
}

// errExchanged says that a path leads to another directory than before.
var errExchanged = errors.New("somebody exchanged it")

// stays is an error if the path of the target no longer leads to the directory that is written to.
func (t *Target) stays(wrote string) error {
	err := t.same()
	var errno syscall.Errno
	switch {
	case err == nil:
		return nil
	case errors.As(err, &errno) && !errors.Is(err, fs.ErrNotExist):
		return t.fail("look at its directory again", err)
	}
	return fmt.Errorf("output %s: directory %s is not the one that it was, %w while the transfer ran; %s",
		t.title, path.Dir(t.title), errExchanged, wrote)
}

const (
	wroteNothing = "nothing was written to the one that is there now"
	wroteBefore  = "the output is in the one that was there before"
)

func (t *Target) same() error {
	at, leave, err := t.reach()
	if err != nil {
		return err
	}
	defer leave()
	now, err := at.Lstat(".")
	if err != nil {
		return err
	}
	held, err := t.fs.Lstat(".")
	if err == nil && !durable.SameFile(now, held) {
		err = errExchanged
	}
	return err
}
