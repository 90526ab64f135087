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
// everybody read new files, and changes no file that is there.
type Access struct {
	// Mode is the mode of index.json, such as 0640; 0 changes nothing. Blobs get the mode without the bits for writing,
	// and directories get a bit for entering with each bit for reading.
	Mode fs.FileMode
	// GID is the group of all files; -1 is the group of the process.
	GID int
}

// Bits returns bits without those of the group if the group may not read, and without those of others if they may not.
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

// Socket sets the group and the mode of a socket in the file system. Those who may read the cache may connect and send.
func (a Access) Socket(path string) error {
	if a.Mode != 0 && a.GID >= 0 {
		if err := os.Chown(path, -1, a.GID); err != nil {
			return err
		}
	}
	return os.Chmod(path, a.Bits(0o666))
}

// apply gives an open file the group, and those of the bits that a allows. Info describes the file.
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

// SetAccess applies a to everything in the cache, and to all files that come. It begins with the directory of the cache,
// so that nobody who may not read reaches the files below it. It looks at each blob, and has to be called before
// anything else is done.
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
	for _, name := range []string{".", "blobs", "index.json", v1.ImageLayoutFile, wishesFile} {
		bits := fs.FileMode(0o644)
		if name == "." || name == "blobs" {
			bits = 0o755
		}
		if err := c.applyTo(name, bits); err != nil && !(name == wishesFile && errors.Is(err, fs.ErrNotExist)) {
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

// applyToBlob applies the access to a blob. A change of its mode changes the time in its record, too, so applyToBlob
// renews the record of a blob that was known to be right, which is then not hashed again.
func (c *Cache) applyToBlob(d digest.Digest) error {
	name, err := blobName(d)
	if err != nil {
		return nil // this is no blob, which Verify reports
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
