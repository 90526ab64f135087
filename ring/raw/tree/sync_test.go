package tree

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/ring"
)

// However slow storage is, only so much waits for it at a time, and what it has taken shows in parts. An error that it tells
// once, while the stream comes, fails the transfer at its end, too.
func TestSlowStorage(t *testing.T) {
	const every = 64 << 10
	entries := []*entry{top()}
	for i := range 640 {
		entries = append(entries, fileEntry(fmt.Sprintf("%03d", i)))
	}
	stream := streamWith(entries...)
	size := int64(len(stream))
	for _, fails := range []bool{false, true} {
		sink := newPlace(t).target(t) // outside the bubble, which does not end with the test
		synctest.Test(t, func(t *testing.T) {
			defer sink.Close()
			sink.every = every
			calls, answer := 0, make(chan error)
			sink.syncfs = func(int) error { calls++; return <-answer }
			w := begun(t, sink, blobOf(stream))
			wrote, written := 0, make(chan error, 1)
			go func() {
				for wrote < len(stream) {
					n := min(every/4, len(stream)-wrote)
					w.(ring.Holding).Good(int64(wrote + n))
					if _, err := w.Write(stream[wrote:][:n]); err != nil {
						written <- err
						return
					}
					wrote += n
				}
				written <- nil
			}()
			synctest.Wait()
			if calls != 1 || wrote > 3*every {
				t.Errorf("%d calls, and %d bytes in front of storage that takes none", calls, wrote)
			}
			if fails {
				answer <- unix.EIO
				close(answer)
				if err := <-written; !errors.Is(err, unix.EIO) {
					t.Errorf("written: %v", err)
				}
				if err := w.Commit(t.Context(), blobOf(stream)); err == nil {
					t.Error("committed")
				}
				return
			}
			close(answer)
			if err := <-written; err != nil {
				t.Fatal(err)
			}
			parts, taken := 0, int64(0)
			err := w.(ring.Flusher).Flush(t.Context(), func(n int64) { parts, taken = parts+1, taken+n })
			if err != nil || parts < 2 || taken != size {
				t.Errorf("storage took %d of %d bytes in %d parts, %v", taken, size, parts, err)
			}
			was := calls
			if err := errors.Join(w.Commit(t.Context(), blobOf(stream)), sink.Publish(t.Context())); err != nil || calls != was {
				t.Errorf("%v, %d calls after Flush", err, calls-was)
			}
		})
	}
}

// begun returns the writer of a transfer that begins.
func begun(t *testing.T, sink *Target, d v1.Descriptor) ring.Writer {
	t.Helper()
	if _, _, err := sink.Offer(t.Context(), []v1.Descriptor{d}); err != nil {
		t.Fatal(err)
	}
	w, err := sink.Begin(t.Context(), d, 0)
	if err != nil {
		t.Fatal(err)
	}
	return w
}
