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
	shortAhead = 1 << 8
	longLeaves = 4 * shortAhead
)

// longSend sends a blob of zeros in leaves to two nodes that keep nothing.
type longSend struct {
	leaves, page int64              // how many leaves, and how many marks are in a page of the server
	at           func(leaves int64) // called with the number of leaves that are read
	on           func(Event)
	sinks        []Sink        // of the nodes, for an update; nil for another transfer
	late         time.Duration // how long the server does not hear what b says
}

// run sends in a bubble.
func (l longSend) run(t *testing.T) {
	sizes := relay.Sizes{Mark: shortMark, Chunk: shortMark, Frame: shortMark, Zero: shortMark, Ahead: shortAhead}
	c := newMemCluster(t, longSource{l.leaves * shortMark, func(off int64) {
		if l.at != nil {
			l.at(off / shortMark)
		}
	}})
	c.bare, c.cfg.Plain, c.cfg.OnEvent, c.cfg.Update = true, true, l.on, l.sinks != nil
	for k, name := range []string{"a:1", "b:1"} {
		n, _ := c.node(name)
		n.node.pool = relay.NewPool(0, sizes)
		n.node.config().Accept = func(context.Context, Request) (Sink, error) {
			if l.sinks != nil {
				return l.sinks[k], nil
			}
			return nothingKept{}, nil
		}
	}
	s, err := newSender(c.cfg)
	if err != nil {
		t.Fatal(err)
	}
	callBare(s)
	s.net.dial, s.pool, s.marks.page = c.net.Host("server").Dial, relay.NewPool(0, sizes), l.page
	c.net.Shape("b", "server", 0, l.late)
	r, err := s.run(t.Context())
	if err != nil || !r.Nodes[0].State.Good() || !r.Nodes[1].State.Good() {
		t.Fatalf("%+v, %v", r, err)
	}
}

// What a server and a node keep of each leaf for all of a transfer is its sum, on the server.
func TestHeapPerLeaf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const all, second = 16 * longLeaves, longLeaves / 4 // those that are read in a second
		heap := map[int64]int64{}
		next := int64(0)
		// With pages of 64 what is encoded has its size soon.
		longSend{leaves: all, page: 64, at: func(leaves int64) {
			if leaves < next {
				return
			}
			time.Sleep(time.Second)
			synctest.Wait()
			if next%(all/8) == 0 {
				var m runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&m)
				heap[next] = int64(m.HeapAlloc)
			}
			next += second
		}}.run(t)
		const from, to = all / 8 * 3, all / 8 * 7
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
		longSend{leaves: longLeaves, page: shortAhead / 16}.run(t)
		if took := time.Since(begun); took >= timings.pingEvery {
			t.Errorf("took %v, in which it reported", took)
		}
	})
}

// oldZeros is a sink that has the first bytes of a blob of zeros already, which an update compares. What is behind after
// takes time to read.
type oldZeros struct {
	nothingKept
	has, after int64
}

func (s oldZeros) Compare(context.Context, v1.Descriptor) (int64, error) { return s.has, nil }
func (oldZeros) Same(v1.Descriptor) bool                                 { return true }
func (s oldZeros) Begin(context.Context, v1.Descriptor, int64) (Writer, error) {
	return s, nil
}
func (oldZeros) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (oldZeros) Zero(int64, int64) error                { return nil }
func (s oldZeros) Open(ctx context.Context, d v1.Descriptor, off int64) (io.ReadCloser, error) {
	if s.after > 0 && off >= s.after {
		time.Sleep(time.Second)
	}
	return s.nothingKept.Open(ctx, d, off)
}

// A server that sends no marks for some time, because it has much else to do, has a node wait, and not forget sums. In an update
// these take no time at all.
func TestMarksComeLate(t *testing.T) {
	const size = 3 * longLeaves * shortMark
	for _, sinks := range [][]Sink{nil, {oldZeros{has: size - shortMark}, oldZeros{has: size - shortMark}}} {
		synctest.Test(t, func(t *testing.T) {
			up := 0
			longSend{leaves: 3 * longLeaves, page: shortAhead / 16, sinks: sinks, on: func(e Event) {
				if e.Kind != EventLink || !e.Up {
					return
				}
				if up++; up == 2 {
					time.Sleep(2 * time.Second)
				}
			}}.run(t)
		})
	}
}

// What a node says before it knows of the start of an update is how far it has compared, also if it arrives behind the start. All marks
// are sent to it once more.
func TestComparesAtStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const leaves = 3 * longLeaves
		longSend{leaves: leaves, page: shortAhead / 16, late: 1500 * time.Millisecond, sinks: []Sink{
			oldZeros{has: leaves * shortMark}, oldZeros{has: leaves * shortMark, after: longLeaves * shortMark},
		}}.run(t)
	})
}
