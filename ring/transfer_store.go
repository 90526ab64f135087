package ring

import (
	"context"
	"io"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// store hashes and writes what arrives.
func (t *transfer) store() {
	var blobs []int
	for b := range t.req.Blobs {
		if !t.m.blobs[b].held { // fixed before START
			blobs = append(blobs, b)
		}
	}
	s := &store{relay: t.relay, blobs: blobs,
		begin: func(b int) (io.Writer, error) {
			select {
			case t.settle <- struct{}{}:
			case <-t.ctx.Done():
				return nil, t.ctx.Err()
			}
			w, err := t.sink.Begin(t.ctx, t.req.Blobs[b], 0)
			if err != nil {
				return nil, nodeErrorOf(err, CodeStore)
			}
			t.mu.Lock()
			t.writers[b] = w
			t.mu.Unlock()
			return w, nil
		},
		sum: func(b int, off int64, sum []byte, end bool) error {
			t.step(meSum{b, off, sum, end})
			return nil
		},
	}
	if err := s.run(); err != nil && t.ctx.Err() == nil {
		t.step(meFailure{nodeErrorOf(err, CodeStore)})
	}
}

// commit makes one verified blob durable while the next one streams.
func (t *transfer) commit(b int, final v1.Descriptor) {
	t.mu.Lock()
	w := t.writers[b]
	delete(t.writers, b)
	t.mu.Unlock()
	d := t.req.Blobs[b]
	d.Digest, d.Size = final.Digest, final.Size
	err := w.Commit(t.ctx, d)
	<-t.settle
	if err != nil {
		t.step(meFailure{nodeErrorOf(err, CodeStore)})
		return
	}
	t.step(meDurable{b})
}

func (t *transfer) prepare() {
	inPlace := false
	if p, ok := t.sink.(Preparer); ok {
		final := make([]v1.Descriptor, len(t.req.Blobs))
		for b, d := range t.req.Blobs {
			d.Digest, d.Size = t.m.digest(b), t.m.blobs[b].size // settled by now
			final[b] = d
		}
		var err error
		if inPlace, err = p.Prepare(t.ctx, final); err != nil {
			t.step(meFailure{nodeErrorOf(err, CodeStore)})
			return
		}
	}
	t.step(mePrepared{inPlace})
}

// publish is not cut short by the end of the transfer: after COMMIT there is no
// way back.
func (t *transfer) publish() {
	if err := t.sink.Publish(context.WithoutCancel(t.ctx)); err != nil {
		t.step(meFailure{nodeErrorOf(err, CodeStore)})
		return
	}
	t.step(mePublished{})
}
