package relay

import (
	"testing"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// fill puts n frames of a size into a relay whose store has taken all of them.
func fill(t *testing.T, r *Relay, off int64, n, size int) int64 {
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
		off += int64(size)
	}
	return off
}

func testRelay(t *testing.T, opener Opener) *Relay {
	r := New(NewPool(Sizes{}.MinWindow(), Sizes{}), []v1.Descriptor{{Size: 1 << 40}})
	r.Arrive(opener, func(int) (int64, bool) { return 0, true })
	r.taken = 1
	t.Cleanup(func() {
		r.Close(ErrClosed)
		r.Release()
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
	if n := len(r.win.frames); n > (Sizes{}.MinWindow())/frameUnit {
		t.Errorf("%d frames are kept", n)
	}
	if r.win.chunks > r.sizes().minChunks() {
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
	if kept := end - oldest; kept < int64(Sizes{}.MinWindow()-wire.MaxPayload) {
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

// From Halt on nobody is fed from the window, which may hold what is wrong, also a link that is ordered
// only now; after FallBack it waits for what comes instead.
func TestHaltedFeedsNobody(t *testing.T) {
	r := testRelay(t, nil)
	fill(t, r, 0, 2, 1000)
	l := &outLink{needs: [][2]int64{{0, 0}}}
	plan := func() planKind {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.plan(l).kind
	}
	if k := plan(); k != planFrame {
		t.Errorf("before: %d", k)
	}
	r.Halt()
	if k := plan(); k != planWait || r.Err() != ErrHalted {
		t.Errorf("halted: %d, %v", k, r.Err())
	}
	r.FallBack(func(int) int64 { return 0 })
	if k := plan(); k != planHead || r.Err() != nil {
		t.Errorf("fallen back: %d, %v", k, r.Err())
	}
}
