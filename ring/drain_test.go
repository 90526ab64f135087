package ring

import (
	"io"
	"net"
	"testing"
	"testing/synctest"
)

// A connection that is posted after the run has ended, as a dial may that succeeds just
// then, is hung up; it was left open, and the sender waited for its end for ever.
func TestDialledAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		go io.Copy(io.Discard, far)
		s := &sender{events: make(chan any, 1), done: make(chan struct{})}
		close(s.done)
		ctrl := newControl(near, serverMemory())
		s.events <- connected{1, ctrl, nil} // in the queue already
		s.work.Go(func() { ctrl.read(0) })  // ends when it is closed
		s.work.Go(func() { <-ctrl.done })   // and so does this
		s.drain()
		far.Close()
	})
}
