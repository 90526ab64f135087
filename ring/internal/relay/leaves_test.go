package relay

import (
	"context"
	"crypto/sha256"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/dolly-img/dolly-img/ring/leaf"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Hashers that have run ahead over leaves which are known, and wait until a leaf before them has come, leave room for that one in
// the smallest window.
func TestHashersWaitForALeafBeforeThem(t *testing.T) {
	const mark, lacks, leaves, most = 4 << 10, 4, 40, 8
	sizes := Sizes{Mark: mark, Chunk: 1 << 10, Frame: 1 << 10}
	data := random(1, leaves*mark)
	set := leaf.SetOf(leaves*mark, mark, func(off int64) bool { return off >= lacks*mark })
	synctest.Test(t, func(t *testing.T) {
		r := New(NewPool(1, sizes), []v1.Descriptor{{MediaType: leaf.MediaType, Size: leaves * mark}})
		r.Hold(func(int) *leaf.Set { return set })
		r.Arrive(new(storage), func(int) (int64, bool) { return 0, true })
		told := 0
		s := &Store{
			Relay: r, Blobs: []int{0}, Hashers: lacks,
			Known: func(_ int, off int64) []byte {
				if !set.Has(off) {
					return nil
				}
				sum := sha256.Sum256(data[off : off+mark])
				return sum[:]
			},
			Ready: func(ctx context.Context, _ int, untold *atomic.Int32) error {
				for untold.Load() >= most && ctx.Err() == nil {
					time.Sleep(time.Millisecond)
				}
				return ctx.Err()
			},
			Sum: func(int, int64, []byte, bool) error { told++; return nil },
		}
		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		defer context.AfterFunc(ctx, func() { r.Close(ErrClosed) })()
		done := make(chan error, 2)
		go func() { done <- s.Run(ctx) }()
		go func() {
			done <- func() error {
				for off := int64(0); off < lacks*mark; off += 1 << 10 {
					buf, err := r.reserve(1 << 10)
					if err != nil {
						return err
					}
					copy(buf, data[off:])
					var hdr [wire.HeaderSize]byte
					wire.PutData(&hdr, 0, off, buf)
					if err := r.put(&hdr, buf, 0, off); err != nil {
						return err
					}
				}
				return nil
			}()
		}()
		if err := errors.Join(<-done, <-done); err != nil || told != leaves+1 {
			t.Errorf("%v after %d of %d sums", err, told, leaves+1)
		}
		r.Close(ErrClosed)
		r.Release()
	})
}
