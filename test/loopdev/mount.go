//go:build linux

package loopdev

import (
	"runtime"
	"testing"
	"time"

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
	elsewhere(func() {
		defer close(done)
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
			if err := unmount(dir); err != nil {
				t.Errorf("unmount %s: %v", path, err)
			}
		}()
		do(dir)
	})
	<-done
	if t.Failed() {
		t.FailNow() // do cannot end the test itself
	}
	return err
}

// unmount unmounts dir. A process that a test beside this one is starting has copies of all open files between fork and exec, and
// with them the file system is busy: for as long as that may take on a loaded machine it is tried again.
func unmount(dir string) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(10 * time.Second); ; <-tick.C {
		if err := unix.Unmount(dir, 0); err != unix.EBUSY || time.Now().After(end) {
			return err
		}
	}
}

// elsewhere runs do on a thread of its own, which ends with it. It is never the first thread of the process, which does not
// end, and whose mounts are those of the process in /proc.
func elsewhere(do func()) {
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			do()
			return
		}
		defer runtime.UnlockOSThread()
		ended := make(chan struct{})
		elsewhere(func() { // on another thread, because this one is taken until then
			defer close(ended)
			do()
		})
		<-ended
	}()
}
