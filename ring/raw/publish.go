package raw

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/cache/durable"
	"github.com/dolly-img/dolly-img/ring/errkind"
)

// leftover looks at a part that is there already: the bytes of disk that it has, and
// how many of them can be gone on from; ErrBusy when somebody writes it.
func (t *Target) leftover() (blocks, part int64, err error) {
	if _, err := t.look(t.temp); errors.Is(err, fs.ErrNotExist) {
		return 0, 0, nil
	}
	f, err := t.openLeft(os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, 0, nil
	}
	if errors.Is(err, errForeign) {
		return 0, 0, err
	}
	if err != nil {
		return 0, 0, t.fail("part file", err)
	}
	defer f.Close()
	err = t.ours(f)
	given := errors.Is(err, errForeign) && t.given(f)
	switch {
	case errors.Is(err, errMoved), errors.Is(err, errForeign) && t.twice():
		return 0, 0, nil // published or removed
	case err != nil && !given:
		return 0, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return 0, 0, t.fail("part file", err)
	}
	if !exposed(info) && errors.Is(durable.TryLock(f), durable.ErrLocked) {
		return 0, 0, t.busy()
	}
	if !given && resumable(info) { // else it is made anew
		part = info.Size()
	}
	return info.Sys().(*syscall.Stat_t).Blocks * 512, part, nil
}

// openPart makes the part file, or takes over one that nobody writes. What
// others may have put under its name is refused, never followed.
func (t *Target) openPart() (durable.File, error) {
	for range 5 {
		anew := false // nothing may be added to it
		f, err := t.fs.OpenFile(t.temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, partMode)
		if err == nil {
			// NFS may give what root makes to somebody else (root_squash).
			if info, err := f.Stat(); err == nil {
				t.uid = int(info.Sys().(*syscall.Stat_t).Uid)
			}
		}
		if errors.Is(err, fs.ErrExist) {
			f, err = t.openLeft(os.O_RDWR)
			if errors.Is(err, fs.ErrNotExist) {
				continue // its owner ended just now
			}
			if errors.Is(err, fs.ErrPermission) {
				f, err = t.openLeft(os.O_RDONLY)
			}
			if err == nil {
				info, err := f.Stat()
				anew = err != nil || !resumable(info)
			}
		}
		if errors.Is(err, errForeign) {
			return nil, err
		}
		if err != nil {
			return nil, t.fail("part file", err)
		}
		err = t.ours(f)
		if err == nil {
			err = lockLeft(f)
			if errors.Is(err, durable.ErrLocked) {
				err = t.busy()
			} else if err != nil {
				err = t.fail("lock the part file", err)
			}
		}
		if err == nil {
			// Whoever had the lock before may have renamed it: then it is the
			// published file, and not to be written.
			err = t.ours(f)
		}
		if err == nil && !anew {
			return f, nil
		}
		if err == nil || errors.Is(err, errForeign) && (t.twice() || t.given(f)) {
			err = t.fs.Remove(t.temp) // while f is locked, so that only one does
		}
		f.Close()
		if err != nil && !errors.Is(err, errMoved) {
			return nil, err
		}
	}
	return nil, t.busy()
}

// openLeft opens what is under the part file's name. A symbolic link there is foreign, also one that leads nowhere.
func (t *Target) openLeft(flag int) (durable.File, error) {
	f, err := t.fs.OpenFile(t.temp, flag|unix.O_NONBLOCK, 0)
	if err == nil {
		return f, nil
	}
	if info, lerr := t.fs.Lstat(t.temp); lerr == nil && info.Mode()&fs.ModeSymlink != 0 {
		return nil, t.foreign()
	}
	return nil, err
}

// busy says that somebody else has the lock. The text is all that the sender sees of
// a node that fails in mid-transfer, so the advice is in it.
func (t *Target) busy() error {
	if t.o.Shared {
		return t.fail("busy", fmt.Errorf("%w, or another node that shares the directory does: name one node for each directory", ErrBusy))
	}
	return t.fail("busy", ErrBusy)
}

// errMoved says that the part file's name is no longer the open file's.
var errMoved = errors.New("the part file was moved")

// ours says why the open f is not a part file that may be written: it has to be
// what the name says now, regular, the user's own and with no other name.
func (t *Target) ours(f durable.File) error {
	info, err := f.Stat()
	if err != nil {
		return t.fail("part file", err)
	}
	named, err := t.fs.Lstat(t.temp)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return t.fail("part file", err)
	}
	if err == nil && named.Mode()&fs.ModeSymlink != 0 {
		return t.foreign()
	}
	if err != nil || !durable.SameFile(info, named) {
		return t.fail("part file", errMoved)
	}
	st := info.Sys().(*syscall.Stat_t)
	if !info.Mode().IsRegular() || st.Nlink != 1 {
		return t.foreign()
	}
	if int(st.Uid) != t.uid {
		if errors.Is(durable.TryLock(f), durable.ErrLocked) {
			return t.busy() // a part that is complete has its owner already
		}
		return t.foreign()
	}
	return nil
}

// given says whether the open f, whose lock we have, is a complete part that was given
// to the owner that this target is for, by a process that was killed before it could
// publish it. It is not written to: its owner may have it open.
func (t *Target) given(f durable.File) bool {
	info, err := f.Stat()
	if err != nil || t.o.Owner == nil || !info.Mode().IsRegular() {
		return false
	}
	named, err := t.fs.Lstat(t.temp)
	st := info.Sys().(*syscall.Stat_t)
	return err == nil && durable.SameFile(info, named) && st.Nlink == 1 && int(st.Uid) == t.o.Owner.UID && durable.TryLock(f) == nil
}

// errForeign says that something else has the part file's name.
var errForeign = errors.New("is not a part file of ours")

func (t *Target) foreign() error { return t.foreignAt(t.temp) }

func (t *Target) foreignAt(name string) error {
	return errkind.Errorf("output-foreign-part", "output %s: %s %w", t.title, name, errForeign)
}

// twice says whether the part file's name is a second one of the published file:
// a power loss may have come between the two steps of the rename.
func (t *Target) twice() bool {
	part, err := t.fs.Lstat(t.temp)
	if err != nil || !part.Mode().IsRegular() {
		return false
	}
	final, err := t.fs.Lstat(t.name)
	return err == nil && durable.SameFile(part, final)
}

// Publish gives the durable part its mode, renames it over the final name, and makes both durable. The old
// file is there until the rename, and stays on any error before it.
func (t *Target) Publish(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.existing != nil && t.existing.same && !t.published {
		t.published = true
		return t.publishExisting(t.existing)
	}
	if t.part == nil || t.complete == nil || t.published {
		return fmt.Errorf("output %s: nothing to publish", t.title)
	}
	if err := t.moved(); err != nil {
		return err
	}
	if err := t.replaceable(); err != nil {
		return err
	}
	if err := t.untouched(); err != nil {
		return err
	}
	if err := t.stays(wroteNothing); err != nil {
		return err
	}
	if err := t.setAside(t.part.File); err != nil {
		return err
	}
	if err := t.unseal(t.part.File); err != nil {
		return err
	}
	rename := t.renameNew
	if t.o.Overwrite {
		rename = t.fs.Rename
	}
	if err := rename(t.temp, t.name); errors.Is(err, fs.ErrExist) {
		return t.exists()
	} else if err != nil {
		return t.fail("rename", err)
	}
	t.published = true
	return t.settle(t.part.File)
}

// untouched says whether the part is what it was when it was complete. If it belongs to somebody else by then, he may
// have written to it. The times of a network file system may settle later.
func (t *Target) untouched() error {
	if t.o.Owner == nil || t.o.Shared {
		return nil
	}
	info, err := t.part.File.Stat()
	if err == nil && !unchanged(info, t.complete) {
		err = errReplaced
	}
	if err != nil {
		return t.fail("part file", err)
	}
	return nil
}

// settle makes the mode and the final name durable, and looks whether it leads to what was published.
func (t *Target) settle(f durable.File) error {
	if !t.o.NoSync {
		if err := t.settleMode(f); err != nil {
			return err
		}
		if err := t.fs.SyncDir("."); err != nil {
			return t.fail("make the name durable", err)
		}
	}
	is, err := durable.IsAt(t.fs, f, t.name)
	if err == nil && !is || errors.Is(err, fs.ErrNotExist) {
		err = errReplaced
	}
	if err != nil {
		return t.fail("look at it again", err)
	}
	return t.stays(wroteBefore)
}

// renameNew is RenameNew also on a file system that cannot do it in one step: the file has both names for a
// moment, which twice recognizes after a power loss.
func (t *Target) renameNew(from, to string) error {
	err := t.fs.RenameNew(from, to)
	if !durable.NotSupported(err) {
		return err
	}
	if err := t.fs.Link(from, to); err != nil {
		return err
	}
	return t.fs.Remove(from)
}

// moved says whether the part file is no longer what its name says.
func (t *Target) moved() error { return t.isAt(t.part.File) }

// isAt is an error where the part's name is not the open f's.
func (t *Target) isAt(f durable.File) error {
	is, err := durable.IsAt(t.fs, f, t.temp)
	if err != nil {
		return t.fail("part file", err)
	}
	if !is {
		return t.fail("part file", errMoved)
	}
	return nil
}
