package relay

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/dolly-img/dolly-img/ring/leaf"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// In a chain of nodes that hold any leaves in advance each link carries what its receiver lacks, once, in order and nothing
// else, whatever its feeder holds itself, and all store and hash all bytes.
func TestSetsChain(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { runSets(t, rand.New(rand.NewPCG(seed, 2))) })
	}
}

// setNode is one node of such a chain.
type setNode struct {
	*testing.T
	relay   *Relay
	data    []byte
	size    int64
	mark    int64
	set     *leaf.Set
	walk    int64 // the next byte that it takes
	got     int64
	sure    int // so many bytes of data are sure to come
	feeds   *setNode
	fin     chan struct{}
	mu      sync.Mutex
	stored  []byte
	written int64
}

func runSets(t *testing.T, rnd *rand.Rand) {
	sizes := Sizes{Mark: 4 << 10, Chunk: 1 << 10, Frame: 256}
	data := random(rnd.Uint64(), 1+rnd.IntN(64<<10))
	for zero := range slices.Chunk(data, 1+rnd.IntN(16<<10)) {
		if rnd.IntN(3) == 0 {
			clear(zero)
		}
	}
	d := v1.Descriptor{MediaType: leaf.MediaType, Size: int64(len(data))}
	holds := rnd.IntN(5) // of four
	var nodes []*setNode
	for i := range 4 {
		n := &setNode{T: t, data: data, size: d.Size, mark: sizes.Mark, stored: make([]byte, len(data)), fin: make(chan struct{})}
		n.relay = New(NewPool(1, sizes), []v1.Descriptor{d})
		if i > 0 || rnd.IntN(2) == 0 { // also the server, which reads them when somebody lacks them
			n.set = leaf.SetOf(d.Size, sizes.Mark, func(int64) bool { return rnd.IntN(4) < holds })
			n.walk = n.set.Next(0)
		}
		if i > 0 {
			nodes[i-1].feeds = n
		}
		for off := int64(0); off < d.Size; off++ {
			if n.set.Has(off) || i == 0 {
				n.stored[off] = data[off]
			}
		}
		nodes = append(nodes, n)
	}
	for _, n := range nodes {
		n.relay.Hold(func(int) *leaf.Set { return n.set })
		n.relay.Arrive(n, func(int) (int64, bool) { return n.walk, true })
	}
	var work sync.WaitGroup
	for i, n := range nodes {
		if n.feeds != nil {
			n.link(rnd.IntN(3) > 0)
		}
		hashers := 1 + rnd.IntN(3)
		work.Go(func() { n.store(i > 0, hashers) })
		if i == 0 {
			work.Go(func() {
				pump := &Pump{Relay: n.relay, Blobs: []int{0}, Open: n.Open}
				if _, err := pump.Run(context.Background()); err != nil {
					t.Error(err)
				}
			})
		}
	}
	work.Wait()
	for i, n := range nodes {
		if n.feeds != nil {
			<-n.feeds.fin
		}
		if want := d.Size - n.set.Bytes(0); i > 0 && n.got != want {
			t.Errorf("node %d was sent %d bytes, lacked %d", i, n.got, want)
		}
		if !bytes.Equal(n.stored, data) {
			t.Errorf("node %d has other bytes", i)
		}
	}
	for _, n := range nodes {
		n.relay.Close(ErrClosed)
		n.relay.Release()
		if u := n.relay.win.pool.Used(); u > 0 {
			t.Errorf("%d bytes of a window are left", u)
		}
	}
}

// link has n feed the next node.
func (n *setNode) link(zeros bool) {
	to := n.feeds
	dial := &wire.Dial{Zeros: zeros, Needs: [][2]int64{{0, to.walk}}, Leaves: []wire.Leaves{{Blob: 0, Set: to.set.Bits()}}}
	err := n.relay.Feed(context.Background(), dial, func(context.Context, wire.LinkHello) (LinkWriter, error) { return to, nil }, func(_, _ uint32, state string, _ wire.Code, reason string) {
		if state == wire.LinkDown {
			n.Error(reason)
		}
	})
	if err != nil {
		n.Error(err)
	}
}

// writeFrame receives a frame, as the one that reads a link does.
func (n *setNode) writeFrame(hdr *[wire.HeaderSize]byte, data []byte, _ *activity) error {
	h, err := wire.ParseHeader(hdr, n.mark)
	if err != nil {
		n.Error(err)
		return err
	}
	if h.Type == wire.Fin {
		if n.walk != n.size {
			n.Errorf("ended at byte %d of %d", n.walk, n.size)
		}
		close(n.fin)
		return nil
	}
	end := h.Offset + int64(h.Length)
	if h.Offset != n.walk || h.Type == wire.Zero && !isZero(n.data[h.Offset:end]) || h.Type == wire.Data && !bytes.Equal(data, n.data[h.Offset:end]) {
		n.Errorf("got %d bytes at %d, at %d it goes on", h.Length, h.Offset, n.walk)
		return errors.New("unexpected bytes")
	}
	if n.sure > 0 && (h.Type != wire.Data || h.Length < n.sure) {
		n.Errorf("%d bytes of data were sure to come at %d", n.sure, h.Offset)
	}
	if n.sure = 0; h.More {
		n.sure = h.Length
	}
	n.got += int64(h.Length)
	n.walk = n.set.Next(end)
	if h.Type == wire.Zero {
		if err := n.relay.reserveZero(); err != nil {
			return err
		}
		return n.relay.publish(frame{hdr: *hdr, n: h.Length, off: h.Offset})
	}
	buf, err := n.relay.reserve(len(data))
	if err != nil {
		return err
	}
	copy(buf, data)
	return n.relay.put(hdr, buf, 0, h.Offset)
}

func (n *setNode) netConn() net.Conn { return nil }
func (n *setNode) Close() error      { return nil }

// store hashes everything, and, but on the server, writes what arrives.
func (n *setNode) store(writes bool, hashers int) {
	s := &Store{Relay: n.relay, Blobs: []int{0}, Hashers: hashers, Saved: new(SavedSums),
		Held: func(_ int, off int64) (io.ReadCloser, error) { return n.Open(n.Context(), v1.Descriptor{}, off) },
		Sum: func(_ int, off int64, sum []byte, end bool) error {
			if want := sumAt(v1.Descriptor{MediaType: leaf.MediaType, Size: n.size}, n.data, off, n.mark, end); !slices.Equal(sum, want) {
				n.Errorf("wrong sum at %d", off)
			}
			n.relay.SetReadable(0, off)
			return nil
		}}
	if hashers != 2 { // what it holds was hashed before
		s.Known = func(_ int, off int64) []byte {
			if !n.set.Has(off) {
				return nil
			}
			end := min(off+n.mark, n.size)
			sum := sha256.Sum256(n.data[off:end])
			return sum[:]
		}
	}
	at := n.set.Next(0)
	if writes {
		s.At = func(int) int64 { return at }
		s.Begin = func(context.Context, int, int64) (io.Writer, error) { return n, nil }
	}
	if err := s.Run(context.Background()); err != nil {
		n.Error(err)
	}
}

func (n *setNode) Open(_ context.Context, _ v1.Descriptor, off int64) (io.ReadCloser, error) {
	return io.NopCloser(io.NewSectionReader(n, off, n.size-off)), nil
}

func (n *setNode) ReadAt(b []byte, off int64) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	k := copy(b, n.stored[off:])
	if k < len(b) {
		return k, io.EOF
	}
	return k, nil
}

func (n *setNode) WriteAt(b []byte, off int64) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if off < n.written || n.set.Any(off, off+int64(len(b))) {
		n.Errorf("wrote %d bytes at %d", len(b), off)
	}
	n.written = off + int64(len(b))
	return copy(n.stored[off:], b), nil
}

func (n *setNode) Write([]byte) (int, error) { return 0, errors.New("not called") }

func (n *setNode) Zero(off, size int64) error {
	_, err := n.WriteAt(make([]byte, size), off)
	return err
}

// What a link takes of memory counts as needs, also its sets of leaves, until it has ended.
func TestSetsCountAsNeeds(t *testing.T) {
	d := v1.Descriptor{MediaType: leaf.MediaType, Size: 2 << 40}
	r := New(NewPool(0, Sizes{}), []v1.Descriptor{d, d})
	set := leaf.NewSet(d.Size, leaf.Size).Bits()
	order := &wire.Dial{Link: 1, Needs: [][2]int64{{0, 0}, {1, 0}}, Leaves: []wire.Leaves{{Blob: 0, Set: set}, {Blob: 1, Set: set}}}
	err := r.Feed(t.Context(), order, func(ctx context.Context, _ wire.LinkHello) (LinkWriter, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}, func(_, _ uint32, _ string, _ wire.Code, _ string) {})
	if err != nil {
		t.Fatal(err)
	}
	if links, needs := r.Feeding(); links != 1 || needs != Weight(order) || needs*needSize < 2*len(set) {
		t.Errorf("feeds %d links of %d needs, and holds %d bytes of sets", links, needs, 2*len(set))
	}
	r.Close(ErrClosed)
	r.Release()
	if links, needs := r.Feeding(); links != 0 || needs != 0 {
		t.Errorf("feeds %d links of %d needs when it has ended", links, needs)
	}
}
