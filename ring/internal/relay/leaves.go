package relay

import (
	"context"
	"hash"
	"slices"
	"sync"
	"sync/atomic"
)

// leaves is where the hashers of one blob in leaves stand. Each of them takes the next leaf that nobody has taken, and
// their sums are told in the order of the blob.
type leaves struct {
	store *Store
	blob  int
	size  int64 // of the blob, in bytes

	untold *atomic.Int32 // see hasher

	mu    sync.Mutex
	next  int64            // where the first leaf begins that no hasher has taken
	idle  []*hasher        // those that wait until they may take one
	told  int64            // where the leaves end whose sums are told
	root  hash.Hash        // over the sums that are told
	sums  map[int64][]byte // those that wait for a leaf before them, by where their leaf ends
	ended bool             // the root is told
}

// run hashes with h one leaf after the other, until all are taken.
func (l *leaves) run(ctx context.Context, h *hasher) error {
	for {
		if err := l.ready(ctx, h); err != nil {
			return err
		}
		off, ok := l.take()
		if !ok {
			return l.finish()
		}
		if s := l.store; s.Known != nil {
			select {
			case <-h.begun:
			case <-ctx.Done():
				return ctx.Err()
			}
			if sum := s.Known(l.blob, off); sum != nil {
				if err := l.hashed(min(off+s.Relay.toMark(off), l.size), sum); err != nil {
					return err
				}
				continue
			}
		}
		h.hash.Reset()
		end, _, err := h.toMark(ctx, off)
		if err != nil {
			return err
		}
		if err := l.hashed(end, h.hash.Sum(nil)); err != nil {
			return err
		}
	}
}

// ready waits until h may take a leaf. Meanwhile the window keeps for it only what nobody has taken: it may wait for the sum of a
// leaf for which there would be no room.
func (l *leaves) ready(ctx context.Context, h *hasher) error {
	l.mu.Lock()
	l.idle = append(l.idle, h)
	l.store.Relay.skip(&h.from, l.next)
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.idle = slices.DeleteFunc(l.idle, func(o *hasher) bool { return o == h })
	}()
	return h.ready(ctx)
}

// take returns where the next leaf begins; ok is false when there is none.
func (l *leaves) take() (off int64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	off = l.next
	if off >= l.size {
		return 0, false
	}
	l.next = min(off+l.store.Relay.toMark(off), l.size)
	for _, h := range l.idle {
		l.store.Relay.skip(&h.from, l.next)
	}
	return off, true
}

// finish is called when there is no leaf to take, which may be so from the beginning.
func (l *leaves) finish() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tell()
}

// hashed takes the sum of the leaf that ends at end.
func (l *leaves) hashed(end int64, sum []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sums[end] = sum
	return l.tell()
}

// tell tells the sums whose turn it is: that of each leaf at its mark, and the root behind the last leaf.
func (l *leaves) tell() error {
	r := l.store.Relay
	for l.told < l.size {
		end := min(l.told+r.toMark(l.told), l.size)
		s := l.sums[end]
		if s == nil {
			return nil
		}
		delete(l.sums, end)
		l.root.Write(s)
		l.told = end
		if !r.atMark(end) {
			continue
		}
		if l.store.Saved != nil {
			l.store.Saved.save(l.blob, end, l.root)
		}
		if err := l.store.judge.hashed(l.blob, sum{end, s, false, l.untold}); err != nil {
			return err
		}
	}
	if l.ended {
		return nil
	}
	l.ended = true
	return l.store.judge.hashed(l.blob, sum{l.size, l.root.Sum(nil), true, l.untold})
}
