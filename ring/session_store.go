package ring

import (
	"context"
	"io"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/dolly-img/dolly-img/ring/internal/member"
	"github.com/dolly-img/dolly-img/ring/internal/relay"
	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/dolly-img/dolly-img/ring/leaf"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// pendingCommits bounds how many blobs are written but not yet durable.
const pendingCommits = 16

// storing is the part of a session that hashes and writes. The session's mutex guards writers, cautious, stored and halt.
type storing struct {
	// writers are the writers of blobs that are not durable yet, by the number of the blob.
	writers map[int]Writer
	// cautious says of each of them that is Cautious how far it may be written.
	cautious map[int]*caution
	// stored is closed when the goroutine that stores has ended. Closing halt ends it, for a fallback.
	stored, halt chan struct{}
	// saved are the sums from which hashing goes on after a fallback.
	saved relay.SavedSums
	// settle has a place for each blob that is written and not durable yet.
	settle chan struct{}
	// settling is how many blobs the disk makes durable now. flushed is how many of their bytes it has taken already.
	settling atomic.Int32
	flushed  atomic.Int64
	// stepped is told of each step of the machine. pages says that the server sends marks as the node reports what is good.
	stepped sync.Cond
	pages   bool
	// told says that the server was told that the target is overwritten.
	told bool
	// writing counts what may be overwriting the target just now.
	writing int
	// back is what compares what is stored, or nil where the Sink need not be read back.
	back *readBack
}

// startStore begins to hash and write what arrives, in each blob from where the machine
// stands, unless check returns an error. mu is held.
func (s *session) startStore(check func() *wire.Error) {
	var blobs []int
	at := make([]int64, len(s.req.Blobs))
	for i := range s.req.Blobs {
		if p := s.m.Position(i); !p.Held && !p.Judged {
			blobs = append(blobs, i)
			at[i] = p.Accepted
		}
	}
	done, halt := make(chan struct{}), make(chan struct{})
	s.storing.stored, s.storing.halt = done, halt
	s.work.Go(func() {
		defer close(done)
		s.waitCompared()
		if err := check(); err != nil {
			s.step(member.EvFailure{Err: err})
			return
		}
		s.store(blobs, func(b int) int64 { return at[b] }, halt)
	})
}

// caution is how far a writer that is Cautious may be written.
type caution struct {
	limit   int64         // before this offset
	ahead   int64         // how far the limit is behind what is good; 0 is as far as anybody likes, after the first mark
	changed chan struct{} // closed when limit grows
}

// maxHashers bounds how many blobs of a transfer are hashed at once, because a node may have other work.
const maxHashers = 4

// hashers returns how many blobs of a transfer are hashed at once.
func hashers() int { return min(runtime.GOMAXPROCS(0), maxHashers) }

// store hashes and writes what arrives.
func (s *session) store(blobs []int, at func(int) int64, halt chan struct{}) {
	st := &relay.Store{Relay: s.relay, Blobs: blobs, Hashers: hashers(), At: at, Saved: &s.storing.saved,
		Begin: func(ctx context.Context, b int, off int64) (io.Writer, error) {
			select {
			case s.storing.settle <- struct{}{}:
			case <-halt: // the places of settle come back only after this
				return nil, relay.ErrHalted
			case <-ctx.Done():
				return nil, ctx.Err()
			}
			w, err := s.sink.Begin(s.ctx, s.req.Blobs[b], off)
			if err != nil {
				return nil, coded(err, wire.CodeStore)
			}
			s.mu.Lock()
			s.storing.writers[b] = w
			delete(s.storing.cautious, b)
			every, good := s.node.pool.MarkEvery(), s.m.Position(b).Good
			if h, ok := w.(Holding); ok {
				ahead := max(h.Ahead(), every)
				s.storing.cautious[b] = &caution{good + ahead, ahead, make(chan struct{})}
			} else if _, ok := w.(Cautious); ok && good < every {
				s.storing.cautious[b] = &caution{every, 0, make(chan struct{})}
			}
			s.mu.Unlock()
			return w, nil
		},
		May:   func(ctx context.Context, b int, off int64) error { return s.mayWrite(ctx, b, off, halt) },
		Wrote: func() { _ = s.writes(-1) },
		Ready: s.awaitSums,
		Sum: func(b int, off int64, sum []byte, end bool) error {
			s.storing.back.keep(b, off, sum, end)
			s.step(member.EvSum{Blob: b, Offset: off, Sum: sum, End: end})
			s.sayTarget()
			return nil
		},
	}
	if s.extra.Comparer != nil && s.waitCompared() {
		st.Known = s.known
	}
	if s.extra.Opener != nil {
		st.Held = func(b int, off int64) (io.ReadCloser, error) {
			return s.extra.Opener.Open(s.ctx, s.req.Blobs[b], off)
		}
	}
	if err := st.Run(s.ctx); err != nil && err != relay.ErrHalted && s.ctx.Err() == nil {
		s.step(member.EvFailure{Err: coded(err, wire.CodeStore)})
	}
}

// mayWrite waits until the bytes of blob b at off may be written. The machine may find that bytes before them are wrong, and then
// halt is closed.
func (s *session) mayWrite(ctx context.Context, b int, off int64, halt chan struct{}) error {
	for {
		s.mu.Lock()
		if s.m.Phase() >= member.Failed {
			s.mu.Unlock()
			return relay.ErrClosed // what it said of its target stays true
		}
		c := s.storing.cautious[b]
		if c == nil || off < c.limit {
			s.storing.writing++
			s.mu.Unlock()
			return nil
		}
		changed := c.changed
		s.mu.Unlock()
		select {
		case <-changed:
		case <-halt:
			return relay.ErrHalted
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// isGood tells the writer of blob b that all bytes before off are right. mu is held.
func (s *session) isGood(b int, off int64) {
	w, ok := s.storing.writers[b].(Cautious)
	if !ok {
		return
	}
	w.Good(off)
	switch c := s.storing.cautious[b]; {
	case c == nil:
	case c.ahead > 0:
		c.limit = off + c.ahead
		close(c.changed)
		c.changed = make(chan struct{})
	case off >= c.limit:
		close(c.changed)
		delete(s.storing.cautious, b)
	}
}

// fallBack goes back to what the machine says is good. Meanwhile nothing feeds, nothing is fed and
// nothing is stored.
func (s *session) fallBack() {
	s.reading <- struct{}{}
	defer func() { <-s.reading }()
	s.mu.Lock()
	stored := s.storing.stored
	close(s.storing.halt)
	s.mu.Unlock()
	<-stored
	s.mu.Lock()
	writers := map[int]Writer{}
	good, at := make([]int64, len(s.req.Blobs)), make([]member.Position, len(s.req.Blobs))
	for i := range s.req.Blobs {
		p := s.m.Position(i)
		at[i] = p
		good[i] = p.Accepted // the size of a blob that is finished
		if w := s.storing.writers[i]; w != nil && !p.Judged {
			writers[i] = w
			delete(s.storing.writers, i)
		}
	}
	s.mu.Unlock()
	for i, w := range writers {
		<-s.storing.settle
		if err := w.Abort(good[i]); err != nil {
			s.step(member.EvFailure{Err: wire.Errorf(wire.CodeMismatch, "%s differs from the source behind byte %d, and what was written cannot be taken back: %w", wire.Called(s.req.Blobs, i), good[i], err)})
			return
		}
	}
	for i := range at {
		s.storing.saved.Back(i, at[i].Good) // leaves that were there before are behind it, and have to be hashed again
	}
	s.relay.Hold(func(b int) *leaf.Set { return at[b].Set })
	s.relay.FallBack(func(b int) int64 { return good[b] })
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return
	}
	s.startStore(func() *wire.Error { return nil })
	s.perform(s.m.Step(member.EvReset{}))
}

// commit makes one verified blob durable while the next one streams.
func (s *session) commit(b int, final v1.Descriptor) {
	s.mu.Lock()
	w := s.storing.writers[b]
	delete(s.storing.writers, b)
	s.mu.Unlock()
	d := s.req.Blobs[b]
	d.Digest, d.Size = final.Digest, final.Size
	s.storing.settling.Add(1)
	flushed, err := s.flush(w)
	if err == nil {
		err = w.Commit(s.ctx, d)
	}
	if err == nil {
		err = s.storing.back.compare(s.ctx, b, d)
	}
	s.storing.settling.Add(-1)
	s.storing.flushed.Add(-flushed) // the blob counts as durable from now on
	<-s.storing.settle
	if err != nil {
		s.step(member.EvFailure{Err: coded(err, wire.CodeStore)})
		return
	}
	s.step(member.EvDurable{Blob: b})
}

// flush waits until the device has what was written of a blob, and has the reports tell how far that is.
func (s *session) flush(w Writer) (flushed int64, err error) {
	if f, ok := w.(Flusher); ok {
		err = f.Flush(s.ctx, func(bytes int64) {
			flushed += bytes
			s.storing.flushed.Add(bytes)
		})
	}
	return flushed, err
}

func (s *session) prepare() {
	inPlace := false
	if s.extra.Preparer != nil {
		final := make([]v1.Descriptor, len(s.req.Blobs))
		for b, d := range s.req.Blobs {
			d.Digest, d.Size = s.m.Digest(b), s.m.Position(b).Size // settled by now
			final[b] = d
		}
		if !s.writes(1) {
			return
		}
		var err error
		inPlace, err = s.extra.Prepare(s.ctx, final)
		_ = s.writes(-1)
		if err != nil {
			s.step(member.EvFailure{Err: coded(err, wire.CodeStore)})
			return
		}
	}
	s.step(member.EvPrepared{InPlace: inPlace})
}

// publish publishes what was verified. The end of the session does not cut it short, because
// there is no way back after COMMIT.
func (s *session) publish() {
	if err := s.sink.Publish(context.WithoutCancel(s.ctx)); err != nil {
		s.step(member.EvFailure{Err: coded(err, wire.CodeStore)})
		return
	}
	s.step(member.EvPublished{})
}
