package ring

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"

	"github.com/dolly-img/dolly-img/ring/internal/member"
	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/dolly-img/dolly-img/ring/leaf"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// comparing is a session's part of what happens before the start of an update. The session's mutex guards it.
type comparing struct {
	// stop ends it, and ended is closed when it has ended. Both are nil before it begins.
	stop  context.CancelFunc
	ended chan struct{}
}

// startComparing hashes what the sink has in place of the blobs. mu is held.
func (s *session) startComparing() {
	if s.over {
		return
	}
	ctx, stop := context.WithCancel(s.ctx)
	ended := make(chan struct{})
	s.comparing = comparing{stop, ended}
	s.work.Go(func() {
		defer close(ended)
		defer stop()
		if err := s.compare(ctx); err != nil && ctx.Err() == nil {
			s.step(member.EvFailure{Err: coded(err, wire.CodeStore)})
			return
		}
		s.step(member.EvHashed{})
	})
}

func (s *session) compare(ctx context.Context) error {
	if s.extra.Comparer == nil || s.extra.Opener == nil {
		return nil
	}
	each := s.node.pool.MarkEvery()
	for b, d := range s.req.Blobs {
		if !leaf.In(d) {
			continue
		}
		size, err := s.extra.Compare(ctx, d)
		if err != nil {
			return err
		}
		if size = min(size, d.Size); size < d.Size {
			size -= size % each // the last leaf of a shorter one is none of the blob's
		}
		err = leafSums(ctx, size, each, hashers(), func(ctx context.Context, off int64) (io.ReadCloser, error) {
			return s.extra.Opener.Open(ctx, d, off)
		}, func(sum [sha256.Size]byte) { s.step(member.EvOwn{Blob: b, Sum: sum}) })
		if errors.Is(err, io.ErrUnexpectedEOF) {
			continue // it became shorter: the leaves that were not read to their ends count as lacking
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// compared takes over what the machine says of the blobs. mu is held.
func (s *session) compared() {
	s.comparing.stop()
	s.relay.Hold(func(b int) *leaf.Set { return s.m.Position(b).Set })
	if s.extra.Compared == nil {
		return
	}
	for b, d := range s.req.Blobs {
		if leaf.In(d) {
			s.extra.Compared.Compared(d, s.m.Position(b).Set)
		}
	}
}

// waitCompared waits until nothing is compared any more, and reports whether something was.
func (s *session) waitCompared() bool {
	s.mu.Lock()
	ended := s.comparing.ended
	s.mu.Unlock()
	if ended != nil {
		<-ended
	}
	return ended != nil
}

// known returns the sum of a leaf that was hashed while it was compared, and that is still believed. The blob was begun.
func (s *session) known(b int, off int64) []byte {
	if s.extra.Comparer == nil || !s.extra.Comparer.Same(s.req.Blobs[b]) {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.m.Compared(b, off)
}

// Comparer is an optional second interface of a Sink that can be read again, and that may have most of a blob in leaves
// already, such as an older file in its place. Its Writers of such blobs are Placers, and an Abort of them keeps also the leaves that
// the Sink holds.
type Comparer interface {
	// Compare is called after Offer and before Begin, when a server updates (Config.Update). It makes ready what the Sink has in place
	// of d, so that Open reads it, and returns how many bytes that are. Of these the whole leaves that are right stay
	// where they are, and the others are brought as usual. If Open then reads less, because what is there became shorter, the rest is
	// brought, too.
	//
	// A Begin at the end of d says that all of it is right. If the Sink then has nothing to write, it leaves what is in place as it
	// is, and says inPlace in Prepare. So the node holds what it has.
	Compare(ctx context.Context, d v1.Descriptor) (size int64, err error)
	// Same is called after a Begin that follows Compare. It reports whether what Open reads of the leaves that are there is for
	// sure what it read when they were compared. If not, they are hashed once more, and those that differ by now are brought.
	Same(d v1.Descriptor) bool
}

// Compared is an optional second interface of a Comparer that has to know what is right before it writes, as one that says on a
// disk what is good there.
type Compared interface {
	// Compared is called after Compare and before Begin, once for each blob in leaves. right has the leaves of d that the Sink
	// holds, and is nil if it holds none: no others are left out when the blob is brought. It must not change right, and must not wait.
	Compared(d v1.Descriptor, right *leaf.Set)
}
