package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/cache/durable"
)

// Access says who may read a cache beside the user who writes it. The zero value lets
// everybody read what is new, and leaves what is there as it is.
type Access struct {
	Mode fs.FileMode // of index.json, as in 0640; 0: nothing is changed. Blobs have none of its bits for writing, directories one for entering beside each for reading
	GID  int         // the group of all of them; -1: that of the process
}

// Bits is bits without those of the group, or of others, where they may not read.
func (a Access) Bits(bits fs.FileMode) fs.FileMode {
	if a.Mode == 0 {
		return bits
	}
	may := fs.FileMode(0o700)
	if a.Mode&0o040 != 0 {
		may |= 0o070
	}
	if a.Mode&0o004 != 0 {
		may |= 0o007
	}
	return bits & may
}

// Socket does for a socket in the file system what its mode says of reading: to send, or to
// connect, is for those who may read.
func (a Access) Socket(path string) error {
	if a.Mode != 0 && a.GID >= 0 {
		if err := os.Chown(path, -1, a.GID); err != nil {
			return err
		}
	}
	return os.Chmod(path, a.Bits(0o666))
}

// apply gives the open f, of which info is told, the group, and bits as far as others may read.
func (a Access) apply(f durable.File, info fs.FileInfo, bits fs.FileMode) error {
	if a.Mode != 0 && a.GID >= 0 && int(stat(info).Gid) != a.GID {
		if err := f.Chown(-1, a.GID); err != nil {
			return err
		}
	}
	if bits = a.Bits(bits); info.Mode().Perm() == bits {
		return nil
	}
	return f.Chmod(bits)
}

// SetAccess applies a to what is in the cache, and to all that comes. The directory of
// the cache is first: from then on nobody else comes to what is below. It costs a look at
// each blob. It is called before anything else is done.
func (c *Cache) SetAccess(a Access) error {
	c.access = a
	if a.Mode == 0 {
		return nil
	}
	if err := c.setAccess(); err != nil {
		return fmt.Errorf("cache %s: who may read it: %w", c.dir, err)
	}
	return nil
}

func (c *Cache) setAccess() error {
	for _, name := range []string{".", "blobs", "index.json", v1.ImageLayoutFile} {
		bits := fs.FileMode(0o755)
		if name == "index.json" || name == v1.ImageLayoutFile {
			bits = 0o644
		}
		if err := c.applyTo(name, bits); err != nil {
			return err
		}
	}
	algorithms, err := c.fs.Names("blobs")
	if err != nil {
		return err
	}
	for _, a := range algorithms {
		names, err := c.fs.Names("blobs/" + a)
		if err != nil {
			return err
		}
		for _, name := range names {
			d := digest.NewDigestFromEncoded(digest.Algorithm(a), name)
			if err := c.applyToBlob(d); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		if err := c.applyTo("blobs/"+a, 0o755); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cache) applyTo(name string, bits fs.FileMode) error {
	f, err := c.fs.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return c.access.apply(f, info, bits)
}

// applyToBlob sees to it that a blob whose digest was known right is not hashed again
// because its change time is another one.
func (c *Cache) applyToBlob(d digest.Digest) error {
	name, err := blobName(d)
	if err != nil {
		return nil // no blob: Verify says so
	}
	info, err := c.fs.Lstat(name)
	if err != nil || !info.Mode().IsRegular() {
		return err
	}
	if info.Mode().Perm() == c.access.Bits(blobMode) && (c.access.GID < 0 || int(stat(info).Gid) == c.access.GID) {
		return nil
	}
	_, trusted := c.trusted(d)
	f, err := c.fs.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := c.access.apply(f, info, blobMode); err != nil {
		return err
	}
	now, err := f.Stat()
	if err != nil {
		return err
	}
	same := stampOf(now)
	same.Ctime = stampOf(info).Ctime
	if trusted && same == stampOf(info) {
		c.trust(d, now)
	}
	return nil
}
