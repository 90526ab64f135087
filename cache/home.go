package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

// home is where a cache lies. The directory may go while a daemon runs: somebody removes it, or its file system is
// unmounted. In the first case the cache is made anew, empty. In the second one it is not: what is written then would fill
// the file system below, and would be hidden by the next mount. What tells the two apart is where the file system is
// mounted on which the directory lies, and that is where the device number of the directories on its path changes.
type home struct {
	mu      sync.Mutex
	path    string // without symbolic links
	mounted string // where its file system is
	dev     uint64
}

// skeleton is what every cache has. All but the first two are directories.
var skeleton = []string{v1.ImageLayoutFile, "index.json", "blobs", "blobs/sha256", "ingest", "kept", "parts", "leases", "holds", "verified", "placed", "layers", "used"}

func newHome(dir string) (*home, error) {
	path, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, err
	}
	h := &home{path: path}
	h.mounted, h.dev, err = mountOf(path)
	return h, err
}

// mountOf returns where the file system of a path is mounted, and its device number. Of a path that does not exist, it is that of the
// directory in which it would be made.
func mountOf(path string) (at string, dev uint64, err error) {
	info, err := os.Stat(path)
	for errors.Is(err, fs.ErrNotExist) && filepath.Dir(path) != path {
		path = filepath.Dir(path)
		info, err = os.Stat(path)
	}
	if err != nil {
		return "", 0, err
	}
	for dev = stat(info).Dev; filepath.Dir(path) != path; path = filepath.Dir(path) {
		above, err := os.Stat(filepath.Dir(path))
		if err != nil {
			return "", 0, err
		}
		if stat(above).Dev != dev {
			break
		}
	}
	return path, dev, nil
}

// there reports whether the cache is where it was and lacks none of some parts.
func (c *Cache) there(names []string) bool {
	info, err := os.Stat(c.home.path)
	if err != nil || stat(info).Dev != c.home.dev {
		return false
	}
	for _, name := range names {
		if _, err := c.fs.Lstat(name); err != nil {
			return false
		}
	}
	return true
}

// ensure makes the cache anew, empty, if its directory has gone or some of its parts. The error about one whose file system is not mounted any
// more has the kind cache-unmounted; the cache goes on when it is mounted again. A transfer that is under way does not end well in a cache that was
// made anew (Transfer.Publish).
func (c *Cache) ensure(names []string) error {
	h := c.home
	if h == nil {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if c.there(names) {
		return nil
	}
	at, _, err := mountOf(h.path)
	if err == nil && at != h.mounted {
		err = errkind.Errorf("cache-unmounted", "no file system is mounted at %s any more; nothing is written below it", h.mounted)
	}
	if err == nil {
		err = c.renew()
	}
	if err == nil {
		_, h.dev, err = mountOf(h.path)
	}
	if err != nil && !readOnly(err) {
		return fmt.Errorf("cache %s: %w", c.dir, err)
	}
	return nil
}

// renew makes what the cache lacks. An index.json that is missing where oci-layout is there is damage, which is left for people.
func (c *Cache) renew() error {
	if err := makeDir(c.home.path); err != nil {
		return err
	}
	err := checkLayout(c.fs)
	if errors.Is(err, fs.ErrNotExist) {
		if err = c.create(); err == nil {
			c.log.Warn("the cache was gone and is made anew, empty", "cache", c.dir)
		}
	}
	if err == nil {
		err = mkdirs(c.fs, skeleton[2:]...)
	}
	if err == nil && c.access.Mode != 0 {
		err = c.setAccess()
	}
	return err
}

// stands returns an error if the cache was removed since the transfer began, whether or not it was made anew.
func (t *Transfer) stands() error {
	if t.lease != nil && !t.lease.stands(t.c.fs) {
		return fmt.Errorf("cache %s: %s: the cache was removed during the transfer", t.c.dir, t.ref)
	}
	return nil
}
