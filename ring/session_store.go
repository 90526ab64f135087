package ring

import (
	"context"
	"io"

	"github.com/dolly-img/dolly-img/ring/internal/member"
	"github.com/dolly-img/dolly-img/ring/internal/wire"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// startStore begins to hash and write what arrives, from where the member stands in
// each blob. mu is held.
func (t *transfer) startStore() {
	var blobs []int
	at := make([]int64, len(t.req.Blobs))
	for i := range t.req.Blobs {
		if p := t.m.Position(i); !p.Held && !p.Judged {
			blobs = append(blobs, i)
			at[i] = p.Accepted
		}
	}
	done, halt := make(chan struct{}), make(chan struct{})
	t.stored, t.halt = done, halt
	t.work.Go(func() {
		defer close(done)
		t.store(blobs, func(b int) int64 { return at[b] }, halt)
	})
}

// store hashes and writes what arrives.
func (t *transfer) store(blobs []int, at func(int) int64, halt chan struct{}) {
	s := &store{relay: t.relay, blobs: blobs, at: at, saved: &t.saved,
		held: func(b int, off int64) (io.ReadCloser, error) {
			if t.relay.opener == nil {
				return nil, wire.Errorf(wire.CodeMismatch, "what was written cannot be read again")
			}
			return t.relay.opener.Open(t.ctx, t.req.Blobs[b], off)
		},
		begin: func(b int, off int64) (io.Writer, error) {
			select {
			case t.settle <- struct{}{}:
			case <-halt: // the slots come back only after this
				return nil, errHalted
			case <-t.ctx.Done():
				return nil, t.ctx.Err()
			}
			w, err := t.sink.Begin(t.ctx, t.req.Blobs[b], off)
			if err != nil {
				return nil, nodeErrorOf(err, wire.CodeStore)
			}
			t.mu.Lock()
			t.writers[b] = w
			t.mu.Unlock()
			return w, nil
		},
		sum: func(b int, off int64, sum []byte, end bool) error {
			t.step(member.EvSum{Blob: b, Offset: off, Sum: sum, End: end})
			return nil
		},
	}
	if err := s.run(); err != nil && err != errHalted && t.ctx.Err() == nil {
		t.step(member.EvFailure{Err: nodeErrorOf(err, wire.CodeStore)})
	}
}

// fallBack goes back to what the member says is good: nothing feeds, nothing is fed
// and nothing is stored while it does.
func (t *transfer) fallBack() {
	t.reading <- struct{}{}
	defer func() { <-t.reading }()
	t.mu.Lock()
	stored := t.stored
	close(t.halt)
	t.mu.Unlock()
	<-stored
	t.mu.Lock()
	writers := map[int]Writer{}
	good := make([]int64, len(t.req.Blobs))
	for i := range t.req.Blobs {
		p := t.m.Position(i)
		good[i] = p.Accepted // of what is finished: its size
		if w := t.writers[i]; w != nil && !p.Judged {
			writers[i] = w
			delete(t.writers, i)
		}
	}
	t.mu.Unlock()
	for i, w := range writers {
		<-t.settle
		if err := w.Abort(good[i]); err != nil {
			t.step(member.EvFailure{Err: wire.Errorf(wire.CodeMismatch, "blob %d differs from the source behind byte %d, and what was written cannot be taken back: %w", i, good[i], err)})
			return
		}
	}
	for i := range good {
		t.saved.back(i, good[i])
	}
	t.relay.fallBack(func(b int) int64 { return good[b] })
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return
	}
	t.startStore()
	t.perform(t.m.Step(member.EvReset{}))
}

// commit makes one verified blob durable while the next one streams.
func (t *transfer) commit(b int, final v1.Descriptor) {
	t.mu.Lock()
	w := t.writers[b]
	delete(t.writers, b)
	t.mu.Unlock()
	d := t.req.Blobs[b]
	d.Digest, d.Size = final.Digest, final.Size
	t.settling.Add(1)
	err := w.Commit(t.ctx, d)
	t.settling.Add(-1)
	<-t.settle
	if err != nil {
		t.step(member.EvFailure{Err: nodeErrorOf(err, wire.CodeStore)})
		return
	}
	t.step(member.EvDurable{Blob: b})
}

func (t *transfer) prepare() {
	inPlace := false
	if t.extra.Preparer != nil {
		final := make([]v1.Descriptor, len(t.req.Blobs))
		for b, d := range t.req.Blobs {
			d.Digest, d.Size = t.m.Digest(b), t.m.Position(b).Size // settled by now
			final[b] = d
		}
		var err error
		if inPlace, err = t.extra.Prepare(t.ctx, final); err != nil {
			t.step(member.EvFailure{Err: nodeErrorOf(err, wire.CodeStore)})
			return
		}
	}
	t.step(member.EvPrepared{InPlace: inPlace})
}

// publish is not cut short by the end of the transfer: after COMMIT there is no
// way back.
func (t *transfer) publish() {
	if err := t.sink.Publish(context.WithoutCancel(t.ctx)); err != nil {
		t.step(member.EvFailure{Err: nodeErrorOf(err, wire.CodeStore)})
		return
	}
	t.step(member.EvPublished{})
}
