package relay

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// However often a store is halted, and wherever its writer and hashers are then, it goes on from a good
// mark with the sums of the right bytes, tells each once more in order, and never before it is written.
func TestStoreGoesOnAfterFallingBack(t *testing.T) {
	sizes := Sizes{Mark: 4 << 10, Chunk: 1 << 10, Frame: 1 << 10}
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			var blobs [][]byte
			var descs []v1.Descriptor
			var good []int64 // what is good of each, whole when it was told to the end
			have := &storage{}
			for i := range 1 + rnd.IntN(6) {
				b := random(seed<<8|uint64(i), rnd.IntN(2)*rnd.IntN(64<<10)+rnd.IntN(64))
				claim := rnd.Int64N(int64(len(b)+1)) * int64(rnd.IntN(2)) / sizes.Mark * sizes.Mark
				blobs, descs, good = append(blobs, b), append(descs, v1.Descriptor{Size: int64(len(b))}), append(good, claim)
				have.blobs = append(have.blobs, bytes.Clone(b[:claim]))
			}
			r := New(NewPool(1, sizes), descs)
			r.Arrive(have, func(b int) (int64, bool) { return good[b], true })
			saved := new(SavedSums)
			ended := make([]bool, len(blobs))
			for round := 0; slices.Contains(ended, false); round++ {
				at := slices.Clone(good)
				var left []int
				for b := range blobs {
					if !ended[b] {
						left = append(left, b)
					}
				}
				var mu sync.Mutex
				first := left         // to be told to the end
				after := rnd.IntN(60) // sums
				if round > 20 {
					after = -1
				}
				s := &Store{Relay: r, Blobs: left, Hashers: 1 + rnd.IntN(4), Saved: saved, Held: have.read, At: func(b int) int64 { return at[b] }}
				s.Begin = func(_ context.Context, b int, off int64) (io.Writer, error) {
					return storageWriter{s: have, blob: b}, nil
				}
				halts := make(chan struct{})
				s.Sum = func(b int, off int64, sum []byte, end bool) error {
					mu.Lock()
					defer mu.Unlock()
					have.mu.Lock()
					defer have.mu.Unlock()
					want := sha256.Sum256(blobs[b][:off])
					if b != first[0] || int64(len(have.blobs[b])) < off || !bytes.Equal(sum, want[:]) {
						t.Errorf("round %d: told of blob %d at %d, of which %d bytes are written, want blob %d", round, b, off, len(have.blobs[b]), first[0])
					}
					if after == 0 {
						close(halts)
					}
					if end {
						first = first[1:]
					}
					if after--; after < 0 && round <= 20 {
						return nil // as package member, which falls back
					}
					good[b], ended[b] = max(good[b], off), end
					saved.Good(b, off)
					return nil
				}
				stored, produced, over := make(chan error, 1), make(chan error, 1), make(chan struct{})
				go func() { stored <- s.Run(t.Context()) }()
				go func() { produced <- produceFrom(r, blobs, at, int64(sizes.Frame)) }()
				go func() {
					defer close(over)
					select {
					case <-halts:
						r.Halt()
					case err := <-stored:
						stored <- err
					}
				}()
				<-over
				if err := errors.Join(<-produced, <-stored); err != nil && !errors.Is(err, ErrHalted) {
					t.Fatal(err)
				}
				for b := range blobs {
					have.blobs[b] = have.blobs[b][:min(good[b], int64(len(have.blobs[b])))]
					saved.Back(b, good[b])
				}
				if len(r.takers) > 0 {
					t.Fatalf("%d takers are left", len(r.takers))
				}
				r.FallBack(func(b int) int64 { return good[b] })
			}
			if !slices.EqualFunc(have.blobs, blobs, bytes.Equal) {
				t.Error("other bytes are stored")
			}
			r.Close(ErrClosed)
			r.Release()
			if u := r.win.pool.Used(); u > 0 {
				t.Errorf("%d bytes of the window are left", u)
			}
		})
	}
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
