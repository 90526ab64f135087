package netns

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Inside runs f on a thread that is on the host: connections that f opens, in its own
// goroutine, come from there.
func (h *Host) Inside(f func() error) error {
	space, err := os.Open("/run/netns/" + h.space())
	if err != nil {
		return err
	}
	defer space.Close()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer home.Close()
	runtime.LockOSThread()
	if err := unix.Setns(int(space.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("%s: setns: %w", h.Name, err)
	}
	ferr := f()
	if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
		// A thread that cannot come back must run nothing else, so it stays locked.
		return errors.Join(ferr, fmt.Errorf("%s: setns back: %w", h.Name, err))
	}
	runtime.UnlockOSThread()
	return ferr
}
