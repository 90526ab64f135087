//go:build linux

package loopdev

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// Mount mounts a device of the test, or a partition of it, while do runs with the directory. Only do sees it, and
// the commands that it starts: in the mount namespace of all, another test that makes a namespace of its own meanwhile
// would take a copy along, which keeps the device busy. An error of mount(2) is returned, and do is not called.
func (d *Device) Mount(t testing.TB, path, kind string, flags uintptr, do func(dir string)) (err error) {
	t.Helper()
	d.Check(t)
	dir := t.TempDir()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and the thread ends with the goroutine
		if err = unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return
		}
		if err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return
		}
		if err = unix.Mount(path, dir, kind, flags, ""); err != nil {
			return
		}
		defer func() {
			if err := unix.Unmount(dir, 0); err != nil {
				t.Errorf("unmount %s: %v", path, err)
			}
		}()
		do(dir)
	}()
	<-done
	if t.Failed() {
		t.FailNow() // do cannot end the test itself
	}
	return err
}
