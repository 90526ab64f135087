package raw

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

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

// RemovePart removes the part file or directory at path that a transfer left, and tells
// whether it is gone. One that somebody writes is left alone, and so is whatever is no part
// of this user: neither, a file with a second name, or another's.
func RemovePart(path string) (gone bool, err error) {
	dir, base := filepath.Split(path)
	if !strings.HasPrefix(base, ".") || !strings.HasSuffix(base, partSuffix) {
		return false, fmt.Errorf("%s is not the name of a part file", path)
	}
	root, err := durable.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	t := &Target{top: root, fs: root, temp: base, title: path, uid: os.Geteuid()}
	defer t.closeDirs()
	if info, err := t.fs.Lstat(base); err == nil && info.IsDir() {
		err = t.dropTree()
		return err == nil, err
	}
	f, err := t.fs.OpenFile(base, os.O_RDONLY|unix.O_NONBLOCK, 0)
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
	if err := durable.TryLock(f); err != nil {
		return false, err
	}
	if err := t.ours(f); err != nil { // who had the lock before may have published it
		return false, err
	}
	return true, t.fs.Remove(base)
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
	if keep := t.kept && t.part.Written() > 0; !t.published && !keep && t.moved() == nil {
		err = t.fs.Remove(t.temp)
	}
	if cerr := t.part.File.Close(); err == nil {
		err = cerr
	}
	t.part, t.durable = nil, false
	if err != nil {
		return t.fail("remove the part file", err)
	}
	return nil
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
	if t.existing != nil {
		t.existing.f.Close()
		t.existing = nil
	}
	if cerr := t.closeDirs(); err == nil {
		err = cerr
	}
	return err
}
