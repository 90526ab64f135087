package raw

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"strings"

	"github.com/dolly-img/dolly-img/cache/durable"
)

// Right before a part gets its mode and then its final name, it is set aside: it gets a name that no other transfer
// uses. Others can open it from its mode on, and hold its lock, so the lock says little; but whatever takes how
// long, only what this transfer has completed can be under the name that it renames.

const asidePrefix = partSuffix + "-"

func asideName() string { return asidePrefix + rand.Text() }

// manyNames is how many names a directory may have to be searched for what was set aside. Others may fill theirs.
const manyNames = 1 << 16

// setAside gives the open part f, which is sealed and locked, a name of its own.
func (t *Target) setAside(f durable.File) error {
	name := asideName()
	if err := t.fs.Rename(t.temp, name); err != nil {
		return t.fail("rename", err)
	}
	t.temp = name
	return t.isAt(f)
}

// takeBack seals a part that did not get its final name and gives it the part's name, for another transfer to go on
// from. If that is not possible, for instance because another transfer has a part by now, it is removed.
func (t *Target) takeBack() error {
	part := partName(t.name)
	if t.temp == part {
		return nil
	}
	err := t.part.File.Chmod(partMode)
	if err == nil {
		err = t.renameNew(t.temp, part)
	}
	if err != nil {
		return t.fs.Remove(t.temp)
	}
	return nil
}

// dropAside removes what transfers to files of the directory had set aside when they were killed, and the directories
// that they had switched away. What lock fails for is left alone.
func (t *Target) dropAside(lock func(durable.File) error) error {
	if more, err := durable.HoldsMore(t.fs, manyNames); err != nil || more {
		return err
	}
	names, err := t.fs.Names(".")
	for _, name := range names {
		if strings.HasPrefix(name, asidePrefix) {
			err = errors.Join(err, t.dropLeft(name, lock))
		}
	}
	return err
}

// RemoveAside removes what killed transfers left that were about to give the part at path, or another one in its
// directory, its final name. No transfer can go on from that.
func RemoveAside(path string) error {
	t, err := leftAt(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer t.closeDirs()
	return t.dropAside(lockLeft)
}
