package raw

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/cache/durable"
)

// What becomes of a part that is not published: it is removed, or kept for another
// transfer and removed when it is too old.

// PartPath is where a Target for the file at path keeps what has arrived of it.
func PartPath(path string) string {
	dir, base := filepath.Split(path)
	return dir + partName(base)
}

const partSuffix = ".dolly-img-part"

func partName(base string) string { return "." + base + partSuffix }

// partMode is the mode of a part until Publish, and dirMode that of one that is a directory. Whoever can open one for
// reading can hold its lock, and so keep every transfer from the target.
const (
	partMode fs.FileMode = 0o600
	dirMode  fs.FileMode = 0o700
)

// exposed says whether others can open a part that was left: it was set aside, or is of a version that did not do that.
func exposed(info fs.FileInfo) bool {
	if info.IsDir() {
		return info.Mode().Perm()&^dirMode != 0
	}
	return info.Mode().Perm()&^partMode != 0
}

// resumable says whether a part that was left may be added to: it has the mode that a part has until Publish, and not
// one with which others, or not even we, can open it.
func resumable(info fs.FileInfo) bool { return info.Mode().Perm() == partMode }

// lockPatience is how long the lock of an exposed part is waited for. A transfer holds it for a moment only.
const lockPatience = 2 * time.Second

// lockLeft locks a part that is there. If it is exposed and stays locked, whoever holds the lock is taken for somebody who
// wants to hold up others, and lockLeft succeeds without it.
func lockLeft(f durable.File) error {
	err := durable.TryLock(f)
	if !errors.Is(err, durable.ErrLocked) {
		return err
	}
	if info, serr := f.Stat(); serr != nil || !exposed(info) {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), lockPatience)
	defer cancel()
	if err = durable.WaitLock(ctx, f); errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

// LeftPart describes the part file or directory at path that a transfer left, and tells the free bytes of its file
// system; -1 is unknown.
func LeftPart(path string) (info fs.FileInfo, free int64, err error) {
	t, err := leftAt(path)
	if err != nil {
		return nil, -1, err
	}
	defer t.closeDirs()
	if info, err = t.fs.Lstat(t.temp); err != nil {
		return nil, -1, err
	}
	dir, err := t.fs.OpenFile(".", os.O_RDONLY, 0)
	if err != nil {
		return nil, -1, err
	}
	defer dir.Close()
	free, _, err = durable.Space(dir)
	return info, free, err
}

// leftAt opens the directory of a part. The caller closes it.
func leftAt(path string) (*Target, error) {
	dir, base := filepath.Split(path)
	if !strings.HasPrefix(base, ".") || !strings.HasSuffix(base, partSuffix) {
		return nil, fmt.Errorf("%s is not the name of a part file", path)
	}
	root, err := durable.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &Target{top: root, fs: root, temp: base, title: path, uid: os.Geteuid()}, nil
}

// RemovePart removes the part file or directory at path that a transfer left, and tells
// whether it is gone. One that somebody writes is left alone, and so is whatever is no part
// of this user: neither, a file with a second name, or another's.
func RemovePart(path string) (gone bool, err error) {
	t, err := leftAt(path)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer t.closeDirs()
	if info, err := t.fs.Lstat(t.temp); err == nil && info.IsDir() {
		err = t.dropTree()
		return err == nil, err
	}
	f, err := t.fs.OpenFile(t.temp, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	if err := t.ours(f); err != nil {
		return false, err
	}
	if err := lockLeft(f); err != nil {
		return false, err
	}
	if err := t.ours(f); err != nil { // who had the lock before may have published it
		return false, err
	}
	return true, t.fs.Remove(t.temp)
}

// dropTree removes what lies under the part's name, unless somebody has it locked or it is
// another's.
func (t *Target) dropTree() error { return t.dropLeft(t.temp, lockLeft) }

// dropLeft removes what an earlier transfer left under a name, unless lock fails for it or it is another's.
func (t *Target) dropLeft(name string, lock func(durable.File) error) error {
	info, err := t.fs.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return t.fail("part", err)
	}
	uid := int(stat(info).Uid) // a directory that was switched away is of whom the one before it was given to
	if !info.IsDir() && !info.Mode().IsRegular() || uid != t.uid && (t.o.Owner == nil || uid != t.o.Owner.UID) {
		return t.foreignAt(name)
	}
	f, err := t.fs.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return t.fail("part", err)
	}
	defer f.Close()
	if lock(f) != nil {
		return t.busy()
	}
	opened, err := f.Stat()
	if err != nil || !durable.SameFile(opened, info) {
		return t.busy()
	}
	if err := t.removeDir(name, info); err != nil {
		return t.fail("remove what an earlier transfer left", err)
	}
	return nil
}

// drop removes the part, while its lock is still held.
func (t *Target) drop() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.dropLocked()
}

func (t *Target) dropLocked() error {
	if t.part == nil {
		return nil
	}
	var err error
	switch {
	case t.published || t.moved() != nil:
	case t.kept && t.worthKeeping():
		err = t.takeBack()
	default:
		err = t.fs.Remove(t.temp)
	}
	t.temp = partName(t.name)
	if cerr := t.part.File.Close(); err == nil {
		err = cerr
	}
	t.part, t.complete = nil, nil
	if err != nil {
		return t.fail("remove the part file", err)
	}
	return nil
}

// worthKeeping says whether the part has leading bytes from which another transfer can go on, and cuts off what is behind.
func (t *Target) worthKeeping() bool {
	n := t.part.Written()
	if t.part.IsAhead() && t.complete == nil {
		n = t.update.front(n)
		if err := t.part.File.Truncate(n); err != nil {
			return false
		}
	}
	return n > 0 || t.complete != nil
}

// Keep has Close leave the part: another transfer for the same file goes on from it.
func (t *Target) Keep() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = true
}

// Close ends the transfer: what was not published is removed, and with it the
// directories made for it.
func (t *Target) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	err := t.dropLocked()
	if !t.published && !t.kept {
		t.unmake()
	}
	if u := t.update; u != nil {
		u.old.f.Close()
	} else if t.existing != nil {
		t.existing.f.Close()
	}
	t.existing, t.update = nil, nil
	if cerr := t.closeDirs(); err == nil {
		err = cerr
	}
	return err
}
