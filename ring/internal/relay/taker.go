package relay

import (
	"context"
	"slices"
	"sync"
)

// taker takes the bytes of one blob from the relay, in their order. The store's writer has one at a time, and
// each of its hashers has one. The relay's mutex guards it.
type taker struct {
	blob int
	// off is the offset of the first byte that the owner of the taker is not done with. Only take moves it.
	off int64
	// frame is the frame that the owner works on. It is pinned, so that its memory stays.
	frame *frame
	// held is how many leading bytes were there before the transfer. The owner reads them, and the leaves that the relay
	// was told to hold, from storage.
	held int64

	cond sync.Cond
	wait func(waitKind) // take calls it before it waits
}

// piece is what comes next for a taker: data, a part of a frame, or so many zeros, or the next n bytes, which were there
// before and are to be read from storage. At the end of the blob it is empty.
type piece struct {
	data  []byte
	zeros int64
	n     int64
}

// enter adds a taker that begins at t.off. Before a blob has takers, the window keeps all frames of it and of the
// blobs behind it.
func (r *Relay) enter(t *taker) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t.cond.L = &r.mu
	r.takers = append(r.takers, t)
	r.taken = t.blob + 1
}

// leave removes t, so that the window keeps no frame for it any more.
func (r *Relay) leave(t *taker) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t.done(r)
	r.takers = slices.DeleteFunc(r.takers, func(o *taker) bool { return o == t })
	r.space.Signal()
}

// done unpins the frame that was taken last.
func (t *taker) done(r *Relay) {
	if t.frame == nil {
		return
	}
	if t.frame.pins--; t.frame.pins == 0 {
		r.space.Signal()
	}
	t.frame = nil
}

// take notes that t is done with all bytes before off, and returns what comes then. It waits until something has
// come, the relay ends, or ctx is done and wakeTakers was called.
func (r *Relay) take(ctx context.Context, t *taker, off int64) (piece, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := &r.blobs[t.blob]
	if t.frame == nil && t.off < off { // it leaves out what it does not need
		r.space.Signal()
	}
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
			if f.data == nil {
				return piece{zeros: f.end() - off}, nil
			}
			return piece{data: f.data[off-f.off:]}, nil
		}
		switch {
		case off < t.held:
			return piece{n: min(t.held-off, r.toMark(off))}, nil
		case b.held.Has(off):
			return piece{n: min(b.size-off, r.toMark(off))}, nil
		case b.size >= 0 && off == b.size:
			return piece{}, nil
		}
		t.wait(waitIn)
		t.cond.Wait()
	}
}

// skip notes that t is done with all bytes before off, while it does not take any.
func (r *Relay) skip(t *taker, off int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t.off < off {
		t.off = off
		t.done(r)
		r.space.Signal()
	}
}

// pass returns where the first byte at or behind off is that the producer brings.
func (r *Relay) pass(blob int, off int64) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.blobs[blob].held.Next(off)
}

// until returns where the first leaf at or behind off begins that the producer leaves out, or the size of the blob.
func (r *Relay) until(blob int, off int64) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := &r.blobs[blob]
	if b.held == nil {
		return b.size
	}
	return b.held.Until(off)
}

// wakeTakers wakes the takers of a blob that wait for no more than has come, or with -1 all takers.
func (r *Relay) wakeTakers(blob int) {
	for _, t := range r.takers {
		if blob < 0 || t.blob == blob && t.off <= r.blobs[blob].recv {
			t.cond.Signal()
		}
	}
}

// untaken says whether the store still needs f: its blob has no takers yet, or one of them is before its end.
func (r *Relay) untaken(f *frame) bool {
	return int(f.blob) >= r.taken ||
		slices.ContainsFunc(r.takers, func(t *taker) bool { return t.blob == int(f.blob) && t.off < f.end() })
}
