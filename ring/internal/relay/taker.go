package relay

import (
	"context"
	"slices"
	"sync"
)

// taker takes the bytes of one blob from the relay, in their order, for the store: its writer, or a
// hasher. The relay's mutex guards it.
type taker struct {
	blob int
	// off is behind what was taken. It is the taker's alone, and moves when what was taken is done with.
	off int64
	// frame is what is being worked on; its memory stays until then.
	frame *frame
	// held is up to where the bytes were there before. They are read again from storage.
	held int64

	cond sync.Cond
	wait func(waitKind) // is told what it waits for
}

// piece is what a taker takes next: a part of a frame, or else n bytes that were there before and are to
// be read from storage. It is neither at the end of the blob.
type piece struct {
	data []byte
	n    int64
}

// enter adds a taker that begins at off. The window keeps the frames of a blob until it has takers, and
// of the blobs behind it.
func (r *Relay) enter(t *taker) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t.cond.L = &r.mu
	r.takers = append(r.takers, t)
	r.taken = t.blob + 1
}

// leave lets the window go on without t.
func (r *Relay) leave(t *taker) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t.done(r)
	r.takers = slices.DeleteFunc(r.takers, func(o *taker) bool { return o == t })
	r.space.Signal()
}

// done gives back what was taken last.
func (t *taker) done(r *Relay) {
	if t.frame == nil {
		return
	}
	if t.frame.pins--; t.frame.pins == 0 {
		r.space.Signal()
	}
	t.frame = nil
}

// take says that t is done with all before off, and waits for what comes then.
func (r *Relay) take(ctx context.Context, t *taker, off int64) (piece, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := &r.blobs[t.blob]
	t.off = off
	t.done(r)
	for {
		if err := r.ended(); err != nil {
			return piece{}, err
		}
		if err := ctx.Err(); err != nil {
			return piece{}, err
		}
		if f := r.win.find(uint32(t.blob), off); f != nil {
			f.pins++
			t.frame = f
			return piece{data: f.data[off-f.off:]}, nil
		}
		switch {
		case off < t.held:
			return piece{n: min(t.held-off, r.toMark(off))}, nil
		case b.size >= 0 && off == b.size:
			return piece{}, nil
		}
		t.wait(waitIn)
		t.cond.Wait()
	}
}

// wakeTakers wakes those that wait for bytes of a blob, or with -1 all.
func (r *Relay) wakeTakers(blob int) {
	for _, t := range r.takers {
		if blob < 0 || t.blob == blob {
			t.cond.Signal()
		}
	}
}

// untaken says whether the window keeps f for the store.
func (r *Relay) untaken(f *frame) bool {
	return int(f.blob) >= r.taken ||
		slices.ContainsFunc(r.takers, func(t *taker) bool { return t.blob == int(f.blob) && t.off < f.end() })
}
