package tree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/ring"
)

// Sink returns the sink that takes part in the transfer of this blob. Where the directory is already what the stream makes,
// that is one which makes the stream again from it, to feed other nodes. Offer was called before.
func (t *Target) Sink() ring.Sink {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.held {
		return &standing{Target: t}
	}
	return t
}

// standing is a Target that holds everything.
type standing struct {
	*Target

	opening sync.Mutex
	source  *Source // of the directory that is there; nil: not asked for yet
}

// Offer is that of the Target, and refuses if it holds nothing any more.
func (s *standing) Offer(ctx context.Context, blobs []v1.Descriptor) (held []int64, free int64, err error) {
	held, free, err = s.Target.Offer(ctx, blobs)
	if err == nil && held[0] == 0 {
		err = s.changed()
	}
	return held, free, err
}

func (s *standing) changed() error {
	return fmt.Errorf("output %s: was changed when the transfer began; push again", s.Target)
}

// Open makes the stream again.
func (s *standing) Open(ctx context.Context, d v1.Descriptor, off int64) (io.ReadCloser, error) {
	s.opening.Lock()
	defer s.opening.Unlock()
	if s.source == nil {
		top, err := s.tree.OpenStanding()
		if err != nil {
			return nil, err
		}
		defer top.Close()
		fd, err := unix.FcntlInt(top.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		source, err := openAt(fd, s.String(), Options{Special: true})
		if err != nil {
			return nil, err
		}
		if source.Size() != d.Size {
			return nil, errors.Join(s.changed(), source.Close())
		}
		s.source = source
	}
	return s.source.Open(ctx, d, off)
}

// Close ends the source, too.
func (s *standing) Close() error {
	s.opening.Lock()
	defer s.opening.Unlock()
	var err error
	if s.source != nil {
		err = s.source.Close()
		s.source = nil
	}
	return errors.Join(err, s.Target.Close())
}

var (
	_ ring.Sink     = (*standing)(nil)
	_ ring.Opener   = (*standing)(nil)
	_ ring.Preparer = (*standing)(nil)
	_ ring.Switcher = (*standing)(nil)
	_ io.Closer     = (*standing)(nil)
)
