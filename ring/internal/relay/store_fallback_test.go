package relay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/dolly-img/dolly-img/ring/leaf"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// However often a store is halted, and wherever its writer and hashers are then, it goes on from a good
// mark with the sums of the right bytes, tells each once more in order, and never before it is written.
func TestStoreGoesOnAfterFallingBack(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			h := newHaltingStore(t, seed)
			for round := 0; slices.Contains(h.ended, false); round++ {
				h.run(round)
			}
			if !slices.EqualFunc(h.have.blobs, h.blobs, bytes.Equal) {
				t.Error("other bytes are stored")
			}
			h.relay.Close(ErrClosed)
			h.relay.Release()
			if u := h.relay.win.pool.Used(); u > 0 {
				t.Errorf("%d bytes of the window are left", u)
			}
		})
	}
}

// haltingStore is a store of a few blobs that is halted again and again, at places that its seed chooses.
type haltingStore struct {
	*testing.T
	rnd   *rand.Rand
	sizes Sizes
	relay *Relay
	saved *SavedSums
	have  *storage

	blobs [][]byte
	descs []v1.Descriptor // every second blob is in leaves
	// good is how many bytes of each blob are good, and all of them once it was told to the end.
	good  []int64
	ended []bool
}

// haltRounds is how many rounds may be halted; those after them run to the end.
const haltRounds = 20

func newHaltingStore(t *testing.T, seed uint64) *haltingStore {
	h := &haltingStore{
		T: t, rnd: rand.New(rand.NewPCG(seed, 1)), sizes: Sizes{Mark: 4 << 10, Chunk: 1 << 10, Frame: 1 << 10},
		saved: new(SavedSums), have: &storage{},
	}
	for i := range 1 + h.rnd.IntN(6) {
		b := random(seed<<8|uint64(i), h.rnd.IntN(2)*h.rnd.IntN(64<<10)+h.rnd.IntN(64))
		claim := h.rnd.Int64N(int64(len(b)+1)) * int64(h.rnd.IntN(2)) / h.sizes.Mark * h.sizes.Mark
		d := v1.Descriptor{MediaType: []string{"", leaf.MediaType}[(seed+uint64(i))%2], Size: int64(len(b))}
		h.blobs, h.descs, h.good = append(h.blobs, b), append(h.descs, d), append(h.good, claim)
		h.have.blobs = append(h.have.blobs, bytes.Clone(b[:claim]))
	}
	h.ended = make([]bool, len(h.blobs))
	h.relay = New(NewPool(1, h.sizes), h.descs)
	h.relay.Arrive(h.have, func(b int) (int64, bool) { return h.good[b], true })
	return h
}

// run stores what is left, is halted on the way in the first rounds, and falls back.
func (h *haltingStore) run(round int) {
	at := slices.Clone(h.good)
	store, halts := h.store(round, at)
	stored, produced, over := make(chan error, 1), make(chan error, 1), make(chan struct{})
	go func() { stored <- store.Run(h.Context()) }()
	go func() { produced <- produceFrom(h.relay, h.blobs, at, int64(h.sizes.Frame)) }()
	go func() {
		defer close(over)
		select {
		case <-halts:
			h.relay.Halt()
		case err := <-stored:
			stored <- err
		}
	}()
	<-over
	if err := errors.Join(<-produced, <-stored); err != nil && !errors.Is(err, ErrHalted) {
		h.Fatal(err)
	}
	for b, stored := range h.have.blobs {
		h.have.blobs[b] = stored[:min(h.good[b], int64(len(stored)))]
		h.saved.Back(b, h.good[b])
	}
	if len(h.relay.takers) > 0 {
		h.Fatalf("%d takers are left", len(h.relay.takers))
	}
	h.relay.FallBack(func(b int) int64 { return h.good[b] })
}

// store makes the store of a round, which begins at at. The channel is closed when it is to be halted.
func (h *haltingStore) store(round int, at []int64) (*Store, chan struct{}) {
	var left []int // to be told to the end
	for b := range h.blobs {
		if !h.ended[b] {
			left = append(left, b)
		}
	}
	after := h.rnd.IntN(60) // sums
	if round > haltRounds {
		after = -1
	}
	s := &Store{Relay: h.relay, Blobs: left, Hashers: 1 + h.rnd.IntN(4), Saved: h.saved, Held: h.have.read, At: func(b int) int64 { return at[b] }}
	s.Begin = func(_ context.Context, b int, off int64) (io.Writer, error) {
		return storageWriter{s: h.have, blob: b}, nil
	}
	var mu sync.Mutex
	halts := make(chan struct{})
	s.Sum = func(b int, off int64, sum []byte, end bool) error {
		mu.Lock()
		defer mu.Unlock()
		h.have.mu.Lock()
		defer h.have.mu.Unlock()
		want := sumAt(h.descs[b], h.blobs[b], off, h.sizes.Mark, end)
		if b != left[0] || int64(len(h.have.blobs[b])) < off || !bytes.Equal(sum, want) {
			h.Errorf("round %d: told of blob %d at %d, of which %d bytes are written, want blob %d", round, b, off, len(h.have.blobs[b]), left[0])
		}
		if after == 0 {
			close(halts)
		}
		if end {
			left = left[1:]
		}
		if after--; after < 0 && round <= haltRounds {
			return nil // as package member, which falls back
		}
		h.good[b], h.ended[b] = max(h.good[b], off), end
		h.saved.Good(b, off)
		return nil
	}
	return s, halts
}

// produceFrom puts what comes behind at, in frames that cross no mark.
func produceFrom(r *Relay, blobs [][]byte, at []int64, frame int64) error {
	for b, data := range blobs {
		for off := at[b]; off < int64(len(data)); {
			buf, err := r.reserve(int(min(int64(len(data))-off, frame, r.toMark(off))))
			if err != nil {
				return err
			}
			copy(buf, data[off:])
			var hdr [wire.HeaderSize]byte
			wire.PutData(&hdr, uint32(b), off, buf)
			if err := r.put(&hdr, buf, uint32(b), off); err != nil {
				return err
			}
			off += int64(len(buf))
		}
	}
	return nil
}
