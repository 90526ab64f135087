package relay

import (
	"context"
	"crypto/sha256"
	"hash"
	"io"
	"math"
	"sync/atomic"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/dolly-img/dolly-img/ring/leaf"
	"golang.org/x/sync/errgroup"
)

// Store hashes and writes the frames of a relay, beside the goroutine that receives them. On the server
// it only hashes: its sums are the marks.
//
// One goroutine, the writer, begins the blobs and writes them one after the other. For each of them it starts a
// goroutine, a hasher, which takes the same frames. So the next blobs, as far as the window holds
// them, are written and hashed while a blob is still hashed. A hasher never reads back what has arrived and was
// written: if the storage changed it, the link that brought it would be blamed. Sum does not see how many
// hashers there are: it gets all sums of one blob before any sum of the next, and no sum of bytes that are not
// written yet.
type Store struct {
	Relay *Relay
	// Blobs are the numbers of the blobs, in travelling order.
	Blobs []int
	// Hashers is the largest number of blobs, or of leaves of a blob, that are hashed at once; 0 means one.
	Hashers int
	// At returns the offset in bytes from which on a blob arrives. With nil each arrives from its first byte. Bytes
	// before that offset are there already: the hasher reads them with Held first.
	At func(blob int) int64
	// Held opens the bytes of a blob that are there already, from off on. With nil they cannot be read.
	Held func(blob int, off int64) (io.ReadCloser, error)
	// Known returns the sum of the leaf of a blob at off if the relay holds that leaf and its bytes were hashed before, else nil.
	// With nil none is known. It is called once the blob is begun.
	Known func(blob int, off int64) []byte
	// Begin opens what a blob is written to, from the offset at on. With nil nothing is written. Begin must not
	// wait after ctx is done. The Writer of a blob of which the relay holds leaves must be a
	// ring.Placer.
	Begin func(ctx context.Context, blob int, at int64) (io.Writer, error)
	// May, unless it is nil, waits until the bytes of a blob at off may be written. It must not wait after ctx is done or the
	// relay is halted. Wrote is called once they were written, or could not be.
	May   func(ctx context.Context, blob int, off int64) error
	Wrote func()
	// Ready, unless it is nil, waits until more of a blob may be hashed, of which so many sums are being made or are not told yet. It
	// must not wait after ctx is done or the relay is halted, nor for a blob of which all sums are told.
	Ready func(ctx context.Context, blob int, untold *atomic.Int32) error
	// Sum takes the sum of every mark and, with end, that of the blob (PROTOCOL.md section 7), in their order. It is not
	// called twice at once.
	Sum func(blob int, off int64, sum []byte, end bool) error
	// Saved keeps the states of hashes from which a fallback goes on. With nil it hashes from the first byte.
	Saved *SavedSums

	judge ledger
}

// Run hashes and writes all blobs to their ends. The first failure of any part ends all of it.
func (s *Store) Run(ctx context.Context) error {
	work, ctx := errgroup.WithContext(ctx)
	r := s.Relay
	defer context.AfterFunc(ctx, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.wakeTakers(-1)
	})()
	s.judge = ledger{blobs: s.Blobs, blob: -1, tell: s.Sum}
	free := make(chan struct{}, max(1, s.Hashers))
	work.Go(func() error {
		for _, b := range s.Blobs {
			select {
			case free <- struct{}{}:
			case <-ctx.Done():
				return ctx.Err()
			}
			done := func() { <-free }
			if err := s.blob(ctx, work, b, done); err != nil {
				return err
			}
		}
		return nil
	})
	return work.Wait()
}

// blob begins a blob, starts what hashes it in work, and writes the blob. hashed is called once it is hashed.
func (s *Store) blob(ctx context.Context, work *errgroup.Group, b int, hashed func()) error {
	at := int64(0)
	if s.At != nil {
		at = s.At(b)
	}
	meter := &s.Relay.meter
	begun := make(chan struct{})
	// All takers enter before a hasher runs: else the window could drop a frame that somebody still needs.
	hashers := s.hashers(b, at, begun)
	for _, h := range hashers {
		s.Relay.enter(&h.from)
	}
	to := &taker{blob: b, off: at, wait: func(k waitKind) { meter.write.is(k) }}
	if s.Begin != nil {
		s.Relay.enter(to)
		defer s.Relay.leave(to)
	}
	left := int32(len(hashers))
	for _, h := range hashers {
		work.Go(func() error {
			defer func() {
				h.is(waitIn)
				s.Relay.leave(&h.from)
				if atomic.AddInt32(&left, -1) == 0 {
					hashed()
				}
			}()
			return h.run(ctx)
		})
	}
	if s.Begin == nil {
		close(begun)
		return s.judge.wrote(b, math.MaxInt64)
	}
	// Begin takes long where it reserves room for a large blob. The hashers hash meanwhile what arrives.
	w, err := s.Begin(ctx, b, at)
	if err != nil {
		return err
	}
	close(begun)
	return s.write(ctx, w, to)
}

// hashers returns what hashes a blob of which at bytes are there: one hasher from the front to the end, or for a blob in
// leaves several, which share the leaves.
func (s *Store) hashers(b int, at int64, begun chan struct{}) []*hasher {
	sum, off := hash.Hash(nil), int64(0)
	if s.Saved != nil {
		sum, off = s.Saved.last(b)
	}
	if sum == nil || off > at {
		sum, off = sha256.New(), 0
	}
	untold := new(atomic.Int32)
	make := func() *hasher {
		h := &hasher{store: s, kind: waitIn, hash: sum, from: taker{blob: b, off: off, held: at}, begun: begun, untold: untold}
		h.from.wait = h.is
		return h
	}
	if !leaf.In(s.Relay.descs[b]) {
		return []*hasher{make()}
	}
	l := &leaves{store: s, blob: b, size: s.Relay.descs[b].Size, next: off, told: off, root: sum, sums: map[int64][]byte{}, untold: untold}
	var all []*hasher
	for range max(1, s.Hashers) {
		h := make()
		h.hash, h.leaves = sha256.New(), l
		all = append(all, h)
	}
	return all
}

// write writes one blob to its end.
func (s *Store) write(ctx context.Context, w io.Writer, t *taker) error {
	meter := &s.Relay.meter
	defer meter.write.is(waitIn)
	to, places := w.(placer)
	places = places && leaf.In(s.Relay.descs[t.blob])
	for off := t.off; ; {
		off = s.Relay.pass(t.blob, off)
		if err := s.judge.wrote(t.blob, off); err != nil {
			return err
		}
		p, err := s.Relay.take(ctx, t, off)
		if err != nil || p.data == nil && p.zeros == 0 {
			return err
		}
		if s.May != nil {
			meter.write.is(waitCPU)
			if err := s.May(ctx, t.blob, off); err != nil {
				return err
			}
		}
		meter.write.is(waitDisk)
		n := int64(len(p.data)) + p.zeros
		switch {
		case !places && p.data != nil:
			_, err = w.Write(p.data)
		case !places:
			err = writeZeros(w, p.zeros)
		case p.data != nil:
			_, err = to.WriteAt(p.data, off)
		default:
			err = to.Zero(off, p.zeros)
		}
		if s.Wrote != nil {
			s.Wrote()
		}
		if err != nil {
			return wire.Errorf(wire.CodeStore, "write: %w", err)
		}
		meter.written.Add(n)
		off += n
	}
}

// hasher hashes one blob, or leaves of it.
type hasher struct {
	store  *Store
	from   taker
	hash   hash.Hash
	leaves *leaves       // which leaves are to be hashed; nil for the whole blob
	begun  chan struct{} // closed once the blob is begun: what was there before is read only then
	kind   waitKind      // what it does now
	untold *atomic.Int32 // how many sums of the blob, by all its hashers, are being made or are not told yet
	buf    []byte        // for what again reads
	loaded byte          // keeps the compiler from dropping the loads of write
}

// is says what the hasher does from now on.
func (h *hasher) is(k waitKind) {
	h.store.Relay.meter.hash.turn(h.kind, k)
	h.kind = k
}

func (h *hasher) run(ctx context.Context) error {
	if h.leaves != nil {
		return h.leaves.run(ctx, h)
	}
	s, b := h.store, h.from.blob
	for off := h.from.off; ; {
		end, err := false, h.ready(ctx)
		if err != nil {
			return err
		}
		if off, end, err = h.toMark(ctx, off); err != nil {
			return err
		}
		if end {
			return s.judge.hashed(b, sum{off, h.hash.Sum(nil), true, h.untold})
		}
		if s.Saved != nil {
			s.Saved.save(b, off, h.hash)
		}
		if err := s.judge.hashed(b, sum{off, h.hash.Sum(nil), false, h.untold}); err != nil {
			return err
		}
	}
}

// ready waits until the hasher may make another sum.
func (h *hasher) ready(ctx context.Context) error {
	if s := h.store; s.Ready != nil {
		if err := s.Ready(ctx, h.from.blob, h.untold); err != nil {
			return err
		}
	}
	h.untold.Add(1)
	return nil
}

// toMark hashes from off to the next mark, or, if the blob ends before it, to its end. It returns where that is.
func (h *hasher) toMark(ctx context.Context, off int64) (to int64, end bool, err error) {
	begin := off
	for {
		p, err := h.store.Relay.take(ctx, &h.from, off)
		switch {
		case err != nil:
			return off, false, err
		case p.data != nil:
			h.is(waitCPU)
			h.write(p.data)
			off += int64(len(p.data))
		case p.zeros > 0:
			h.is(waitCPU)
			h.writeZeros(p.zeros, off == begin)
			off += p.zeros
		case p.n > 0:
			if err := h.again(ctx, off, p.n); err != nil {
				return off, false, err
			}
			off += p.n
		default:
			return off, true, nil
		}
		// No frame crosses a mark (wire.ParseHeader), so none is missed.
		if h.store.Relay.atMark(off) {
			return off, false, nil
		}
	}
}

// write hashes b. A frame has left the processor's cache by the time its turn comes, and SHA-256 waits for each
// line of it. Loading one byte of every line of a piece first makes it up to half as fast again, because the
// processor loads many lines at once.
func (h *hasher) write(b []byte) {
	h.store.Relay.meter.hashed.Add(int64(len(b)))
	const line, piece = 64, 32 << 10 // the piece fits into the smallest cache
	for len(b) > 0 {
		next, sum := b[:min(len(b), piece)], byte(0)
		for i := 0; i < len(next); i += line {
			sum ^= next[i]
		}
		h.loaded = sum
		h.hash.Write(next)
		b = b[len(next):]
	}
}

// writeZeros hashes n zeros. What the first zeros of a leaf make of a hash is known.
func (h *hasher) writeZeros(n int64, first bool) {
	if first && h.leaves != nil {
		h.hash, n = zeroHash(n)
	}
	h.store.Relay.meter.hashed.Add(n)
	for n > 0 {
		k := min(n, int64(len(zeros)))
		h.hash.Write(zeros[:k])
		n -= k
	}
}

// again reads and hashes n bytes at off, which were there before the transfer.
func (h *hasher) again(ctx context.Context, off, n int64) error {
	if h.store.Held == nil {
		return wire.Errorf(wire.CodeMismatch, "what was written cannot be read again")
	}
	h.is(waitDisk)
	select {
	case <-h.begun:
	case <-ctx.Done():
		return ctx.Err()
	}
	r, err := h.store.Held(h.from.blob, off)
	if err != nil {
		return err
	}
	defer r.Close()
	if h.buf == nil {
		h.buf = make([]byte, min(n, ioChunk))
	}
	for n > 0 {
		h.is(waitDisk)
		k, err := io.ReadFull(r, h.buf[:min(int64(len(h.buf)), n)])
		if err != nil {
			return wire.Errorf(wire.CodeStore, "read again what was there: %w", err)
		}
		h.is(waitCPU)
		h.hash.Write(h.buf[:k])
		h.store.Relay.meter.hashed.Add(int64(k))
		n -= int64(k)
		if err := h.store.Relay.Err(); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}
