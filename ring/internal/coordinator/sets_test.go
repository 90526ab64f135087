package coordinator

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/dolly-img/dolly-img/ring/leaf"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// served returns a coordinator of two blobs of eight leaves and of a node that claims all of these, and the link into it.
func served(t *testing.T) (c *Machine, link, gen uint32, leaves []wire.Leaves) {
	blob := v1.Descriptor{MediaType: leaf.MediaType, Size: 8 * leaf.Size}
	c = New(Config{Nodes: []Peer{{Name: "n1"}}, MarkEvery: leaf.Size}, []v1.Descriptor{blob, blob})
	c.Step(EvWelcome{Node: 1, Instance: wire.ID{1}, State: wire.StateNew, Version: wire.Version})
	for b := range 2 {
		leaves = append(leaves, wire.Leaves{Blob: b, Set: []byte{0xff}})
	}
	c.Step(EvAnswer{Node: 1, Held: []int64{0, 0}, Free: -1, Replay: true, Leaves: leaves})
	f := c.nodes[1].feed
	if f.state != feedAsked {
		t.Fatalf("the node is not fed: %v", c.Row(1))
	}
	return c, f.link, f.gen, leaves
}

// A node that goes back to anywhere ends its own part, and neither the server nor what it counts.
func TestFallbackToNowhere(t *testing.T) {
	for _, good := range []int64{-1, leaf.Size + 1, 8*leaf.Size + 1, math.MaxInt64 - 1, math.MaxInt64} {
		c, link, gen, _ := served(t)
		for range wire.MaxMissed { // it may go back so often until its claims count no more
			c.Step(EvFallback{Node: 1, Msg: &wire.Fallback{Link: link, Generation: gen, Offset: leaf.Size, Good: good}})
		}
		if r := c.Row(1); r.State != Failed || r.Cause.Kind != KindProtocol {
			t.Errorf("good before byte %d: %s, %v", good, r.State, r.Cause)
		}
		if h := c.nodes[1].holdings; h.claimed > 16*leaf.Size || h.claimed < 0 {
			t.Errorf("good before byte %d: claims %d bytes", good, h.claimed)
		}
	}
}

// What a node says to hold of a blob that it does not need never gets to a feeder, which would refuse the whole link.
func TestNeedWithOtherLeaves(t *testing.T) {
	for _, test := range []struct {
		needs [][2]int64
		ok    bool
	}{
		{[][2]int64{{0, 0}, {1, 0}}, true},
		{[][2]int64{{0, 0}}, false},
		{[][2]int64{{1, 0}}, false},
		{nil, false},
	} {
		c, link, gen, leaves := served(t)
		c.Step(EvNeed{Node: 1, Link: link, Generation: gen, Needs: test.needs, Leaves: leaves})
		if r := c.Row(1); (r.State == Failed) == test.ok {
			t.Errorf("needs %v: %s, %v", test.needs, r.State, r.Cause)
		}
	}
}

// What a node claims counts as the sum of what it claims of each blob, whichever marks show that it was wrong.
func TestClaimedAddsUp(t *testing.T) {
	blob := v1.Descriptor{MediaType: leaf.MediaType, Size: 20*leaf.Size + 5}
	blobs := []v1.Descriptor{blob, blob, blob}
	sizes := []int64{blob.Size, blob.Size, blob.Size}
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 5))
		var h holdings
		var sets []*leaf.Set
		ev := EvAnswer{Held: make([]int64, len(blobs))}
		for b := range blobs {
			ev.Held[b] = rnd.Int64N(blob.Size)
			sets = append(sets, leaf.SetOf(blob.Size, leaf.Size, func(int64) bool { return rnd.IntN(2) == 0 }))
		}
		h.take(blobs, sizes, ev, sets, 0, leaf.Size)
		for range 6 {
			before, less := h.claimed, int64(0)
			b, good := rnd.IntN(len(blobs)), rnd.Int64N(20)*leaf.Size
			if off := good + leaf.Size; h.owns(b, good, off) {
				less += h.cut(b, good, off)
			}
			less += h.drop(b, good, rnd.IntN(3) == 0)
			sum := int64(0)
			for b := range blobs {
				sum += h.claimedOf(b)
			}
			if h.claimed != sum || h.claimed != before-less {
				t.Fatalf("seed %d: %d bytes are claimed of the blobs, %d of all, which was %d before %d were taken back", seed, sum, h.claimed, before, less)
			}
		}
	}
}
