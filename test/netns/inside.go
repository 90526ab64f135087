package netns

import (
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
	ended := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for ever: the thread ends with the goroutine
		if err := unix.Setns(int(space.Fd()), unix.CLONE_NEWNET); err != nil {
			ended <- fmt.Errorf("%s: setns: %w", h.Name, err)
			return
		}
		ended <- f()
	}()
	return <-ended
}
