package ring

import (
	"context"
	"crypto/sha256"
	"io"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/relay"
	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/dolly-img/dolly-img/ring/leaf"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// longSource has one blob in leaves, of zeros, and calls at with where it reads.
type longSource struct {
	size int64
	at   func(off int64)
}

func (s longSource) Blobs(context.Context) ([]v1.Descriptor, error) {
	return []v1.Descriptor{{MediaType: leaf.MediaType, Size: s.size}}, nil
}

func (s longSource) Open(_ context.Context, _ v1.Descriptor, off int64) (io.ReadCloser, error) {
	return io.NopCloser(io.LimitReader(readFunc(func(p []byte) (int, error) {
		s.at(off)
		clear(p)
		off += int64(len(p))
		return len(p), nil
	}), s.size-off)), nil
}

// nothingKept is a sink that stores nothing, and reads zeros again.
type nothingKept struct{}

func (nothingKept) Offer(_ context.Context, blobs []v1.Descriptor) ([]int64, int64, error) {
	return make([]int64, len(blobs)), -1, nil
}
func (nothingKept) Begin(context.Context, v1.Descriptor, int64) (Writer, error) {
	return nothingKept{}, nil
}
func (nothingKept) Publish(context.Context) error               { return nil }
func (nothingKept) Write(p []byte) (int, error)                 { return len(p), nil }
func (nothingKept) Commit(context.Context, v1.Descriptor) error { return nil }
func (nothingKept) Abort(int64) error                           { return nil }
func (nothingKept) Open(ctx context.Context, d v1.Descriptor, off int64) (io.ReadCloser, error) {
	return longSource{d.Size, func(int64) {}}.Open(ctx, d, off)
}

// These make everything smaller together.
const (
	shortMark  = 4 << 10
	longLeaves = 32 << 10
)

// sendLong sends a blob of so many leaves to two nodes that keep nothing, in a bubble, and calls at with the number of
// leaves that are read, and on with what happens. The server has pages of so many marks.
func sendLong(t *testing.T, leaves, page int64, at func(leaves int64), on func(Event)) {
	sizes := relay.Sizes{Mark: shortMark, Chunk: shortMark, Frame: shortMark, Zero: shortMark}
	c := newMemCluster(t, longSource{leaves * shortMark, func(off int64) { at(off / shortMark) }})
	c.bare, c.cfg.Plain, c.cfg.OnEvent = true, true, on
	for _, name := range []string{"a:1", "b:1"} {
		n, _ := c.node(name)
		n.node.pool = relay.NewPool(0, sizes)
		n.node.config().Accept = func(context.Context, Request) (Sink, error) { return nothingKept{}, nil }
	}
	s, err := newSender(c.cfg)
	if err != nil {
		t.Fatal(err)
	}
	callBare(s)
	s.net.dial, s.pool, s.marks.page = c.net.Host("server").Dial, relay.NewPool(0, sizes), page
	r, err := s.run(t.Context())
	if err != nil || r.Nodes[0].State != Committed || r.Nodes[1].State != Committed {
		t.Fatalf("%+v, %v", r, err)
	}
}

// What a server and a node keep of each leaf for all of a transfer is its sum, on the server.
func TestHeapPerLeaf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const second = longLeaves / 64 // leaves that are read in a second
		heap := map[int64]int64{}
		next := int64(0)
		// With pages of 64 what is encoded has its size soon.
		sendLong(t, longLeaves, 64, func(leaves int64) {
			if leaves < next {
				return
			}
			time.Sleep(time.Second)
			synctest.Wait()
			if next%(longLeaves/8) == 0 {
				var m runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&m)
				heap[next] = int64(m.HeapAlloc)
			}
			next += second
		}, nil)
		const from, to = longLeaves / 8 * 3, longLeaves / 8 * 7
		t.Logf("%v", heap)
		if grown := heap[to] - heap[from]; grown > (sha256.Size+sha256.Size/2)*(to-from) {
			t.Errorf("%d bytes of heap with %d leaves, %d with %d: %.1f for each leaf", heap[from], from, heap[to], to, float64(grown)/(to-from))
		}
	})
}

// A node that is fast asks for more marks between two reports, and does not wait for the next one.
func TestGoodBetweenReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		sendLong(t, longLeaves, markPage, func(int64) {}, nil)
		if took := time.Since(begun); took >= timings.pingEvery || longLeaves < 2*wire.MarksAhead {
			t.Errorf("took %v, in which it reported", took)
		}
	})
}

// A server that sends no marks for some time, because it has much else to do, has a node wait, and not forget sums.
func TestMarksComeLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := 0
		sendLong(t, 3*longLeaves, markPage, func(int64) {}, func(e Event) {
			if e.Kind != EventLink || !e.Up {
				return
			}
			if up++; up == 2 {
				time.Sleep(2 * time.Second)
			}
		})
	})
}
