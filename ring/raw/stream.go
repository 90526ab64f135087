package raw

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

// chunk is the most that is read from a stream at once.
const chunk = 1 << 20

// Spool is a stream as a source of one blob whose size is known at its end. It
// is read once, as fast as the fastest reader asks for more, and kept in an
// unlinked temporary file so that any earlier offset can be read again.
type Spool struct {
	r      io.Reader
	closes io.Closer // r, if it is the Spool's to close
	file   *os.File  // nil: nothing but the last chunk is kept

	pumping sync.Once
	mu      sync.Mutex
	changed sync.Cond
	buf     []byte // the last chunk, which ends at end
	end     int64  // bytes read of r so far
	want    int64  // some reader waits for bytes beyond this offset
	err     error  // why there are no more: io.EOF or a failure
	closed  bool
}

// Stream makes a source of r, usually standard input. It spools below dir; with
// dir "" it keeps only the last chunk, so that a second reader which begins
// behind it fails and a broken chain cannot be fed again.
func Stream(r io.Reader, dir string) (*Spool, error) {
	s := &Spool{r: r, want: -1}
	s.changed.L = &s.mu
	if dir == "" {
		return s, nil
	}
	f, err := os.CreateTemp(dir, ".dolly-img-spool-*")
	if err != nil {
		return nil, errkind.Errorf("spool-unwritable", "spool of the input: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, fmt.Errorf("spool of the input: %w", err)
	}
	s.file = f
	return s, nil
}

// Blobs is the stream: neither its size nor its digest is known.
func (s *Spool) Blobs(context.Context) ([]v1.Descriptor, error) {
	return []v1.Descriptor{{MediaType: mediaType, Size: -1}}, nil
}

// Open reads from off on, which may be at most what was read so far.
func (s *Spool) Open(ctx context.Context, _ v1.Descriptor, off int64) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if off < 0 || off > s.end {
		return nil, fmt.Errorf("input: offset %d is outside the %d bytes read so far", off, s.end)
	}
	if s.file == nil && off < s.end-int64(len(s.buf)) {
		return nil, s.gone(off)
	}
	r := &spoolReader{ctx: ctx, s: s, off: off}
	r.stop = context.AfterFunc(ctx, s.wake)
	return r, nil
}

// Size is how many bytes were read so far.
func (s *Spool) Size() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.end
}

func (s *Spool) gone(off int64) error {
	return errkind.Errorf("spool-none",
		"input: what was read at offset %d is not kept", off)
}

func (s *Spool) wake() {
	s.mu.Lock()
	s.changed.Broadcast()
	s.mu.Unlock()
}

// pump reads r, one chunk each time a reader waits. A goroutine of its own, as
// the read of a terminal or a pipe cannot be cancelled: it may outlive Close
// until that read returns.
func (s *Spool) pump() {
	next := make([]byte, chunk)
	for {
		s.mu.Lock()
		for s.want < s.end && !s.closed {
			s.changed.Wait()
		}
		off, closed := s.end, s.closed
		s.mu.Unlock()
		if closed {
			return
		}
		n, err := readSome(s.r, next)
		if err != nil && err != io.EOF {
			err = fmt.Errorf("input: %w", err)
		}
		if n > 0 && s.file != nil {
			if _, werr := s.file.WriteAt(next[:n], off); werr != nil {
				n, err = 0, errkind.Errorf("spool-full", "spool of the input: %w", werr)
			}
		}
		s.mu.Lock()
		if n > 0 {
			s.buf, next = next[:n], s.buf[:cap(s.buf)]
			if len(next) == 0 {
				next = make([]byte, chunk)
			}
			s.end += int64(n)
		}
		s.err = err
		s.changed.Broadcast()
		s.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// readSome is one Read that returned something.
func readSome(r io.Reader, b []byte) (n int, err error) {
	for range 100 {
		if n, err = r.Read(b); n > 0 || err != nil {
			return n, err
		}
	}
	return 0, io.ErrNoProgress
}

// Close ends the source; what was spooled is gone.
func (s *Spool) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	s.changed.Broadcast()
	var errs []error
	if s.file != nil {
		errs = append(errs, s.file.Close())
	}
	if s.closes != nil {
		errs = append(errs, s.closes.Close())
	}
	return errors.Join(errs...)
}

type spoolReader struct {
	ctx  context.Context
	s    *Spool
	off  int64
	stop func() bool
}

func (r *spoolReader) Read(b []byte) (int, error) {
	n, err := r.read(b)
	r.off += int64(n)
	return n, err
}

func (r *spoolReader) read(b []byte) (int, error) {
	s := r.s
	if len(b) == 0 {
		return 0, nil
	}
	s.mu.Lock()
	for r.ctx.Err() == nil && !s.closed && r.off == s.end && s.err == nil {
		s.pumping.Do(func() { go s.pump() })
		s.want = max(s.want, r.off)
		s.changed.Broadcast()
		s.changed.Wait()
	}
	start := s.end - int64(len(s.buf))
	switch {
	case r.ctx.Err() != nil:
		s.mu.Unlock()
		return 0, r.ctx.Err()
	case s.closed:
		s.mu.Unlock()
		return 0, fmt.Errorf("input: %w", os.ErrClosed)
	case r.off == s.end:
		defer s.mu.Unlock()
		return 0, s.err
	case r.off >= start: // the last chunk: no need to ask the disk
		defer s.mu.Unlock()
		return copy(b, s.buf[r.off-start:]), nil
	case s.file == nil:
		defer s.mu.Unlock()
		return 0, s.gone(r.off)
	}
	end := s.end
	s.mu.Unlock()
	n, err := s.file.ReadAt(b[:min(int64(len(b)), end-r.off)], r.off)
	if errors.Is(err, io.EOF) && n > 0 {
		err = nil
	} else if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (r *spoolReader) Close() error {
	r.stop()
	return nil
}
