package tree

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/ring"
)

// syncEvery is after how many bytes of the stream storage begins to make durable what was unpacked. Twice as many at the most
// wait for that, so a disk that takes a fraction of them in a minute still shows in time that it lives.
const syncEvery = 128 << 20

// syncer makes durable what is unpacked, while more of it is. One goroutine at a time uses it.
type syncer struct {
	fd    int // of the directory. All calls go through one open file, since only that is told each error of writing
	sync  func(fd int) error
	every int64

	begun   int64      // bytes of the stream that were unpacked when the last call began
	durable int64      // bytes of the stream that are durable
	running chan error // of a call that runs; nil: none
	err     error
}

func newSyncer(fd int, every int64, sync func(fd int) error) (*syncer, error) {
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	return &syncer{fd: own, sync: sync, every: every}, err
}

// unpacked begins a call once enough bytes were unpacked, which are those before off. Before it begins the next one it waits
// for the last one.
func (s *syncer) unpacked(off int64) error {
	if off-s.begun < s.every {
		return s.err
	}
	if err := s.wait(); err != nil {
		return err
	}
	s.begin(off)
	return nil
}

func (s *syncer) begin(off int64) {
	s.begun = off
	s.running = make(chan error, 1)
	go func(ended chan<- error) { ended <- s.sync(s.fd) }(s.running)
}

// wait waits for a call that runs. After an error all of them fail.
func (s *syncer) wait() error {
	if s.running == nil {
		return s.err
	}
	if err := <-s.running; s.err == nil {
		s.err = err
	}
	s.running = nil
	if s.err == nil {
		s.durable = s.begun
	}
	return s.err
}

// all makes everything durable, the bytes before end, and calls done after each part of it, unless that is nil.
func (s *syncer) all(ctx context.Context, end int64, done func(bytes int64)) error {
	for told := int64(0); ; {
		if err := s.wait(); err != nil {
			return err
		}
		if n := s.durable - told; done != nil && n > 0 {
			done(n)
			told = s.durable
		}
		if s.durable == end {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		s.begin(end)
	}
}

// close ends it, in the background where storage has not answered yet.
func (s *syncer) close() {
	go func() {
		_ = s.wait()
		unix.Close(s.fd)
	}()
}

// Flush unpacks what is left, all of which is known to be right, and waits until storage has it; see ring.Flusher.
func (w *writer) Flush(ctx context.Context, done func(bytes int64)) (err error) {
	t := (*Target)(w)
	defer t.explain(&err)
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.settle(ctx, done)
}

// settle unpacks what is left, and makes all of it durable.
func (t *Target) settle(ctx context.Context, done func(bytes int64)) error {
	if t.x == nil {
		return fmt.Errorf("output %s: nothing to make durable", t)
	}
	if err := t.q.drain(t.q.end, t.x); err != nil {
		return err
	}
	if err := t.x.finish(); err != nil {
		return err
	}
	if err := t.s.all(ctx, t.q.end, done); err != nil {
		return fmt.Errorf("output %s: make durable: %w", t, err)
	}
	return nil
}

var _ ring.Flusher = (*writer)(nil)
