package ring

import (
	"testing"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// fill puts n frames of a size into a relay whose store has taken all of them.
func fill(t *testing.T, r *relay, off int64, n, size int) int64 {
	t.Helper()
	for range n {
		buf, err := r.reserve(size)
		if err != nil {
			t.Fatal(err)
		}
		var hdr [wire.HeaderSize]byte
		wire.PutData(&hdr, 0, off, buf)
		if err := r.put(&hdr, buf, 0, off); err != nil {
			t.Fatal(err)
		}
		r.stored()
		off += int64(size)
	}
	return off
}

func testRelay(t *testing.T, opener Opener) *relay {
	r := newRelay(newPool(minChunks*chunkSize), []v1.Descriptor{{Size: 1 << 40}}, opener)
	r.arrive(func(int) bool { return true })
	t.Cleanup(func() {
		r.close(errClosed)
		r.release()
		if r.win.pool.used != 0 {
			t.Errorf("%d chunks are not given back", r.win.pool.used)
		}
	})
	return r
}

// A feeder of tiny frames takes no more memory than one of large ones.
func TestWindowBoundsFrames(t *testing.T) {
	r := testRelay(t, nil)
	fill(t, r, 0, 20_000, 1)
	if n := len(r.win.frames); n > minChunks*chunkSize/frameUnit {
		t.Errorf("%d frames are kept", n)
	}
	if r.win.chunks > minChunks {
		t.Errorf("%d chunks", r.win.chunks)
	}
}

// The window keeps the newest bytes, finds any of them, and holds what a link
// inside it still needs, be it the tail of a frame.
func TestWindowKeepsWhatIsNeeded(t *testing.T) {
	const size = 256 << 10
	r := testRelay(t, nil)
	end := fill(t, r, 0, 100, size)
	oldest := r.win.frames[0].off
	if kept := end - oldest; kept < int64((minChunks-1)*chunkSize) {
		t.Errorf("keeps %d bytes", kept)
	}
	for _, off := range []int64{oldest, oldest + 1, oldest + size - 1, oldest + size, end - 1} {
		if f := r.win.find(0, off); f == nil || off < f.off || off >= f.end() {
			t.Errorf("byte %d: frame %+v", off, f)
		}
	}
	for _, off := range []int64{oldest - 1, end} {
		if f := r.win.find(0, off); f != nil {
			t.Errorf("byte %d is in a frame at %d", off, f.off)
		}
	}
	l := &outLink{needs: [][2]int64{{0, oldest + 7}}, pos: oldest + 7}
	r.links = append(r.links, l)
	defer func() { r.links = nil }()
	if !r.needed(r.win.frames[0]) {
		t.Error("the frame whose tail a link needs may go")
	}
	l.pos = oldest + size
	if r.needed(r.win.frames[0]) {
		t.Error("a frame before the link's position is held")
	}
}
