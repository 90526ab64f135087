package ringtest

import (
	"context"
	"io"
	"slices"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/ring"
)

// Sink is what TestSink checks. It stands for one place where nothing was published yet.
type Sink struct {
	// New begins another transfer of the blobs to the place.
	New func() ring.Sink
	// Blobs has the digest and size of each blob, and Bytes its content. One blob should be larger than a few KiB.
	Blobs []v1.Descriptor
	Bytes [][]byte

	// Published reports whether what the transfers of New make is there, whole and right. It is nil if that cannot be
	// seen.
	Published func(t *testing.T) bool
	// Left lists the temporary files at the place. What it returns must be the same before and after a transfer. It is nil
	// if the place has no such files.
	Left func(t *testing.T) []string

	// OneWay is true for a stream. What was written to it cannot be taken back.
	OneWay bool

	// InLeaves is true for a place that keeps leaves of a blob which was not published, and no front of it.
	InLeaves bool

	// Compares is true for a place that does not vouch for what is there. A second transfer brings the bytes again and
	// finds that they are the same. Renews is true for a place that a second transfer writes again.
	Compares, Renews bool
}

// TestSink checks a Sink. Each call of setup makes a new place.
func TestSink(t *testing.T, setup func(t *testing.T) Sink) {
	run := func(name string, test func(t *testing.T, s *sinkTest)) {
		t.Run(name, func(t *testing.T) {
			place := setup(t)
			if len(place.Blobs) == 0 || len(place.Blobs) != len(place.Bytes) {
				t.Fatalf("setup has %d blobs and the bytes of %d", len(place.Blobs), len(place.Bytes))
			}
			s := &sinkTest{Sink: place, ctx: t.Context()}
			left := s.left(t)
			test(t, s)
			if now := s.left(t); !slices.Equal(left, now) {
				t.Errorf("left behind: %v, before: %v", now, left)
			}
		})
	}
	run("Transfer", testTransfer)
	run("CommitBesideWrite", testCommitBesideWrite)
	run("Offer", testOffer)
	run("CloseOnly", func(t *testing.T, s *sinkTest) { s.close(t, s.New()) })
	run("CloseWithoutPublish", testCloseWithoutPublish)
	run("CloseWhileKept", testCloseWhileKept)
	run("Placed", testPlaced)
	run("Abort", testAbort)
	run("Continue", testContinue)
	run("Keep", testKeep)
	run("Replay", testReplay)
	run("Again", testAgain)
	run("Compared", testCompared)
	run("Cancelled", testCancelled)
	run("WrongSize", testWrongSize)
}

// sinkTest is one place under test.
type sinkTest struct {
	Sink
	ctx context.Context
}

func (s *sinkTest) size(i int) int64 { return int64(len(s.Bytes[i])) }

func (s *sinkTest) left(t *testing.T) []string {
	if s.Left == nil {
		return nil
	}
	return slices.Sorted(slices.Values(s.Left(t)))
}

func (s *sinkTest) published(t *testing.T, want bool) {
	t.Helper()
	if s.Published != nil && !s.OneWay && s.Published(t) != want {
		t.Errorf("published is %v, want %v", !want, want)
	}
}

// offered begins a transfer to a place where nothing is held.
func (s *sinkTest) offered(t *testing.T) ring.Sink {
	t.Helper()
	sink := s.New()
	for range 2 { // Offer only reads, so it can be called twice
		held, free, err := sink.Offer(s.ctx, s.Blobs)
		if err != nil {
			t.Fatalf("offer: %v", err)
		}
		if len(held) != len(s.Blobs) || free < -1 {
			t.Fatalf("offer holds %v of %d blobs, %d free", held, len(s.Blobs), free)
		}
		for i, n := range held {
			if n != 0 {
				t.Errorf("holds %d bytes of blob %d at a new place", n, i)
			}
		}
	}
	s.published(t, false)
	return sink
}

// write begins blob i at byte from and writes it up to byte to.
func (s *sinkTest) write(t *testing.T, sink ring.Sink, i int, from, to int64) ring.Writer {
	t.Helper()
	w, err := sink.Begin(s.ctx, s.Blobs[i], from)
	if err != nil {
		t.Fatalf("begin of blob %d at %d: %v", i, from, err)
	}
	writeChunks(t, w, s.Bytes[i][from:to])
	return w
}

// writeChunks writes b in chunks of odd sizes. It uses one buffer for all of them, so that a sink which keeps the buffer
// fails.
func writeChunks(t *testing.T, w io.Writer, b []byte) {
	t.Helper()
	buf := make([]byte, 0, 1<<20)
	for k := 0; len(b) > 0; k++ {
		n := min([]int{1, 7, 4095, 65537, 1 << 20}[k%5], len(b))
		buf = append(buf[:0], b[:n]...)
		if m, err := w.Write(buf); m != n || err != nil {
			t.Fatalf("write of %d bytes: %d, %v", n, m, err)
		}
		clear(buf)
		b = b[n:]
	}
}

func (s *sinkTest) commit(t *testing.T, i int, w ring.Writer) {
	t.Helper()
	if err := w.Commit(s.ctx, s.Blobs[i]); err != nil {
		t.Errorf("commit of blob %d: %v", i, err)
	}
}

func (s *sinkTest) prepare(t *testing.T, sink ring.Sink, want bool) {
	t.Helper()
	p, ok := sink.(ring.Preparer)
	if !ok {
		return
	}
	if sw, ok := sink.(ring.Switcher); ok && sw.Switches(s.ctx) == want {
		t.Errorf("switches something: %v, want %v", want, !want)
	}
	inPlace, err := p.Prepare(s.ctx, s.Blobs)
	if err != nil {
		t.Fatalf("prepare: %v", err)
	}
	if inPlace != want {
		t.Errorf("prepare says in place: %v, want %v", inPlace, want)
	}
}

func (s *sinkTest) close(t *testing.T, sink ring.Sink) {
	t.Helper()
	if c, ok := sink.(io.Closer); ok {
		if err := c.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
}
