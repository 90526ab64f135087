package durable

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
)

// CreateLocked makes a file with a random name in dir and locks it. The lock says that the maker of the file lives:
// RemoveOrphan removes the file once its maker is gone.
func CreateLocked(fsys FS, dir string, perm fs.FileMode) (File, string, error) {
	for range 5 {
		name := path.Join(dir, rand.Text())
		f, err := fsys.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, perm)
		if err != nil {
			return nil, "", err
		}
		// Between the two calls another process may have removed the file as one that was left behind.
		err = TryLock(f)
		if err == nil {
			if is, _ := IsAt(fsys, f, name); is {
				return f, name, nil
			}
		}
		f.Close()
		if err != nil && !errors.Is(err, ErrLocked) {
			fsys.Remove(name)
			return nil, "", fmt.Errorf("lock %s: %w", name, err)
		}
	}
	return nil, "", fmt.Errorf("%s: cannot keep a new file there", dir)
}

// RemoveOrphan removes a file that CreateLocked has made, if its maker is gone.
func RemoveOrphan(fsys FS, name string) error {
	f, err := fsys.OpenFile(name, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	err = TryLock(f)
	if err == nil {
		var is bool
		if is, _ = IsAt(fsys, f, name); is {
			err = fsys.Remove(name)
		}
	}
	if errors.Is(err, ErrLocked) {
		return nil
	}
	return err
}

// Replace replaces the file name by one with data, in one step and durably. Readers see the old file or the new one, and
// after a power loss one of the two is there. Replace makes the new file in the directory temps, on the same file system,
// with CreateLocked, and finish sets its mode and owner. After an error the old file is in place, or the new one is in
// place and may not survive a power loss.
func Replace(fsys FS, name, temps string, data []byte, finish func(File) error) error {
	f, temp, err := CreateLocked(fsys, temps, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err = f.WriteAt(data, 0); err == nil {
		err = finish(f)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = fsys.Rename(temp, name)
	}
	if err != nil {
		fsys.Remove(temp)
		return err
	}
	return fsys.SyncDir(path.Dir(name))
}
