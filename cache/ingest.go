package cache

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"

	"github.com/dolly-img/dolly-img/cache/durable"
)

func stat(info fs.FileInfo) *syscall.Stat_t { return info.Sys().(*syscall.Stat_t) }

// sweep removes the files in dir whose makers are gone: of a part, whose name is
// that of a lease and a number, its transfer, of any other file who made it.
func sweep(fsys durable.FS, dir string) error {
	names, err := fsys.Names(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		owner, _, isPart := strings.Cut(name, ".")
		name = path.Join(dir, name)
		if isPart {
			if err := sweepPart(fsys, name, "leases/"+owner); err != nil {
				return err
			}
			continue
		}
		f, err := fsys.OpenFile(name, os.O_RDWR, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		err = durable.TryLock(f)
		if err == nil && durable.IsAt(fsys, f, name) {
			err = fsys.Remove(name)
		}
		f.Close()
		if err != nil && !durable.IsLocked(err) {
			return err
		}
	}
	return nil
}

func sweepPart(fsys durable.FS, name, lease string) error {
	f, err := fsys.OpenFile(lease, os.O_RDONLY, 0)
	if err == nil {
		err = durable.TryLock(f)
		defer f.Close()
		if durable.IsLocked(err) {
			return nil
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := leave(fsys, name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// replace puts data under name, durably and at once: a reader, or a power loss,
// meets the old file or the new one.
func (c *Cache) replace(name string, data []byte) error {
	f, temp, err := durable.CreateLocked(c.fs, "ingest", lockMode)
	if err != nil {
		return err
	}
	defer f.Close()
	var info fs.FileInfo
	if _, err = f.WriteAt(data, 0); err == nil {
		info, err = f.Stat()
	}
	if err == nil {
		err = c.access.apply(f, info, 0o644)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = c.fs.Rename(temp, name)
	}
	if err != nil {
		c.fs.Remove(temp)
		return err
	}
	return c.fs.SyncDir(path.Dir(name))
}

// readFile reads all of a file of at most limit bytes.
func readFile(fsys durable.FS, name string, limit int64) ([]byte, error) {
	f, err := fsys.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, 0, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s is larger than %d bytes", name, limit)
	}
	return b, err
}
