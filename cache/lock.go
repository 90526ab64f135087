package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/dolly-img/dolly-img/cache/durable"
)

// lockMode is the mode of lock files. Whoever can open one for reading can hold its lock, and so stop everybody.
const lockMode = 0o600

// lockPatience is how long a lock that others can hold is waited for. Processes of the cache hold one for a moment.
const lockPatience = 2 * time.Second

// lockIndex keeps every other process, and goroutine, from changing index.json.
func (c *Cache) lockIndex(ctx context.Context) (unlock func(), err error) {
	select {
	case c.indexMu <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("cache %s: lock: %w", c.dir, ctx.Err())
	}
	f, err := c.takeLock(ctx)
	if err != nil {
		<-c.indexMu
		return nil, fmt.Errorf("cache %s: lock: %w", c.dir, err)
	}
	return func() { f.Close(); <-c.indexMu }, nil
}

// takeLock waits for the lock of the file lock. If the file is from a version that let others open it, takeLock makes it
// anew, because others may have it open still.
func (c *Cache) takeLock(ctx context.Context) (durable.File, error) {
	for {
		f, err := c.fs.OpenFile("lock", os.O_RDWR|os.O_CREATE, lockMode)
		if err != nil {
			return nil, err
		}
		if mayRenew(f) {
			err = c.renewLock(ctx, f)
			f.Close()
			if err != nil {
				return nil, err
			}
			continue
		}
		is := false
		if err = durable.WaitLock(ctx, f); err == nil {
			is, err = durable.IsAt(c.fs, f, "lock")
		}
		if is {
			return f, nil
		}
		f.Close()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
}

// exposed reports whether others can open a lock file, which an earlier version made.
func exposed(info fs.FileInfo) bool { return info.Mode().Perm()&^lockMode != 0 }

// mayRenew reports whether others can open a lock file that is this user's. Another user has to renew theirs.
func mayRenew(f durable.File) bool {
	info, err := f.Stat()
	return err == nil && exposed(info) && (os.Geteuid() == 0 || int(stat(info).Uid) == os.Geteuid())
}

// renewLock replaces the lock file that is open as old by one that only its owner can open. A process that has the lock
// of the old one, and is not done in time, is taken for somebody who wants to hold up others.
func (c *Cache) renewLock(ctx context.Context, old durable.File) error {
	// One process at a time renews the lock. Nobody else has ever been able to open this file.
	one, err := c.fs.OpenFile("lock.renew", os.O_RDWR|os.O_CREATE, lockMode)
	if err != nil {
		return err
	}
	defer one.Close()
	if err := durable.WaitLock(ctx, one); err != nil {
		return err
	}
	patience, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	if err := durable.WaitLock(patience, old); err != nil && (ctx.Err() != nil || patience.Err() == nil) {
		return err
	}
	if is, err := durable.IsAt(c.fs, old, "lock"); !is {
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return err // another process was first
	}
	info, err := old.Stat()
	if err != nil {
		return err
	}
	f, name, err := durable.CreateLocked(c.fs, "ingest", lockMode)
	if err != nil {
		return err
	}
	defer f.Close()
	if st := stat(info); int(st.Uid) != os.Geteuid() {
		err = f.Chown(int(st.Uid), int(st.Gid))
	}
	if err == nil {
		err = c.fs.Rename(name, "lock")
	}
	if err != nil {
		_ = c.fs.Remove(name)
	}
	return err
}
