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

// sweep removes the files in dir whose makers are gone. The maker of a part is the transfer whose lease is in
// the name of the part. The maker of any other file holds its lock.
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
		remove := durable.RemoveOrphan
		if dir == "leases" {
			remove = removeLease
		}
		if err := remove(fsys, name); err != nil {
			return err
		}
	}
	return nil
}

func sweepPart(fsys durable.FS, name, lease string) error {
	f, err := fsys.OpenFile(lease, os.O_RDONLY, 0)
	if err == nil {
		defer f.Close()
		var lives bool
		if lives, err = makerLives(f); lives {
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

// replace is durable.Replace for a file that others may read.
func (c *Cache) replace(name string, data []byte) error {
	return durable.Replace(c.fs, name, "ingest", data, func(f durable.File) error {
		info, err := f.Stat()
		if err != nil {
			return err
		}
		return c.access.apply(f, info, 0o644)
	})
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
		err = &largeError{name, limit}
	}
	return b, err
}

// A largeError says that a file has more bytes than one of its kind may have.
type largeError struct {
	name  string
	limit int64
}

func (e *largeError) Error() string {
	return fmt.Sprintf("%s is larger than %d bytes", e.name, e.limit)
}
