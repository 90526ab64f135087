package ring

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/dolly-img/dolly-img/ring/internal/relay"
	"github.com/opencontainers/go-digest"
)

type tls13 = tls.Config

func send(t *testing.T, cfg Config) (*Report, error) {
	t.Helper()
	return sendUntil(t, t.Context(), cfg)
}

func sendUntil(t *testing.T, ctx context.Context, cfg Config) (*Report, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, testLimit)
	defer cancel()
	s, err := newSender(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.pool = relay.NewPool(leastWindow, relay.Sizes{})
	return s.run(ctx)
}

func TestSend(t *testing.T) {
	sizes := map[string][][]byte{
		"one":              {random(1, 9<<20+123)},
		"empty":            {{}},
		"mark":             {random(2, 4<<20)},
		"several":          {random(3, 100), random(4, 5<<20), {}, random(5, 8<<20+1), random(6, 1)},
		"big":              {random(7, 14<<20)},
		"one byte":         {{7}},
		"no digest":        {random(8, 5<<20)},
		"empty, no digest": {{}},
	}
	for name, blobs := range sizes {
		for _, plain := range []bool{false, true} {
			for _, n := range []int{1, 4} {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					c := newCluster(t, n, nil)
					src := newMemSource(!strings.Contains(name, "no digest"), blobs...)
					cfg := c.config(src)
					cfg.Plain = plain
					broken := false // on a machine that is loaded a dial may take too long
					cfg.OnEvent = func(ev Event) { broken = broken || ev.Kind == EventLink && ev.Reason != "up" }
					r, err := send(t, cfg)
					if err != nil {
						t.Fatal(err)
					}
					c.wants(r, Committed, blobs...)
					if want := totalSize(src.descs); r.Sent != want && !broken {
						t.Errorf("the server sent %d bytes of %d: not a ring", r.Sent, want)
					}
				})
			}
		}
	}
}

// A stream's length and digest are known at its end only.
func TestSendStream(t *testing.T) {
	for _, size := range []int{0, 1, 4 << 20, 9<<20 + 5} {
		c := newCluster(t, 3, nil)
		src := newMemSource(false, random(1, size))
		src.descs[0].Size = -1
		r, err := send(t, c.config(src))
		if err != nil {
			t.Fatal(err)
		}
		if r.Bytes != int64(size) {
			t.Errorf("reports %d bytes of %d", r.Bytes, size)
		}
		c.wants(r, Committed, src.blobs[0])
	}
}

// The second push of the same moves nothing; a node that lacks a part of it gets
// that part from the neighbour that holds it.
func TestSendAgain(t *testing.T) {
	blobs := [][]byte{random(1, 3<<20), random(2, 2<<20), random(3, 500)}
	c := newCluster(t, 4, nil)
	src := newMemSource(true, blobs...)
	for range 2 {
		r, err := send(t, c.config(src))
		if err != nil {
			t.Fatal(err)
		}
		c.wants(r, Committed, blobs...)
	}
	delete(c.nodes[2].sink.have, src.descs[0].Digest)
	delete(c.nodes[1].sink.have, src.descs[1].Digest)
	r, err := send(t, c.config(src))
	if err != nil {
		t.Fatal(err)
	}
	c.wants(r, Committed, blobs...)
	if want := []int64{0, 2 << 20, 3 << 20, 0}; r.Nodes[0].Bytes != want[0] || r.Nodes[1].Bytes != want[1] || r.Nodes[2].Bytes != want[2] || r.Nodes[3].Bytes != want[3] {
		t.Errorf("nodes received %d %d %d %d bytes, want %d", r.Nodes[0].Bytes, r.Nodes[1].Bytes, r.Nodes[2].Bytes, r.Nodes[3].Bytes, want)
	}
	if r.Sent != 2<<20 {
		t.Errorf("the server sent %d bytes: node 2's copy should have come from it, node 3's from node 2", r.Sent)
	}
}

type plannedSource struct {
	*memSource
	read [][]bool
}

func (s *plannedSource) Planned(read []bool) { s.read = append(s.read, read) }

// The source is told once which blobs some node lacks.
func TestPlanned(t *testing.T) {
	blobs := [][]byte{random(1, 100_000), random(2, 100_000), random(3, 100_000)}
	c := newCluster(t, 2, nil)
	for i, n := range c.nodes {
		for _, b := range blobs[i:2] { // both have the second, none the third
			n.sink.have[digest.FromBytes(b)] = b
		}
	}
	src := &plannedSource{memSource: newMemSource(true, blobs...)}
	r, err := send(t, c.config(src))
	if err != nil {
		t.Fatal(err)
	}
	c.wants(r, Committed, blobs...)
	if got := fmt.Sprint(src.read); got != "[[true false true]]" {
		t.Errorf("told %s", got)
	}
}

// Where one node cannot dial the next, the server feeds that one, from memory or
// from its source; neither node is lost.
func TestCannotDial(t *testing.T) {
	blob := random(1, 9<<20)
	c := newCluster(t, 3, nil)
	c.nodes[0].node.net.dial = func(context.Context, string) (net.Conn, error) { return nil, errors.New("no route to host") }
	src := newMemSource(true, blob)
	r, err := send(t, c.config(src))
	if err != nil {
		t.Fatal(err)
	}
	c.wants(r, Committed, blob)
	if r.Sent != 2*int64(len(blob)) {
		t.Errorf("the server sent %d bytes", r.Sent)
	}
}

// A node that stops while it still decides on an offer.
func TestShutdownDuringOffer(t *testing.T) {
	deciding := make(chan bool)
	c := newCluster(t, 1, nil)
	c.nodes[0].node.config().Accept = func(ctx context.Context, _ Request) (Sink, error) {
		close(deciding)
		<-ctx.Done()
		return c.nodes[0].sink, nil
	}
	go func() {
		<-deciding
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		c.nodes[0].node.Shutdown(ctx)
	}()
	r, err := send(t, c.config(newMemSource(true, random(1, 100))))
	if err != nil {
		t.Fatal(err)
	}
	if s := r.Nodes[0].State; s.Good() || c.nodes[0].sink.published > 0 {
		t.Errorf("%+v", r.Nodes[0])
	}
}

// An interrupt before the first commit leaves every node as it was.
func TestInterrupt(t *testing.T) {
	c := newCluster(t, 2, nil)
	src := newMemSource(true, random(1, 9<<20))
	ctx, cancel := context.WithCancel(t.Context())
	src.read = func(_ int, off int64) {
		if off > 4<<20 {
			cancel()
		}
	}
	r, err := Send(ctx, c.config(src))
	// The source may be read to its end before the signal is seen; then all commit.
	if err == nil {
		c.wants(r, Committed, src.blobs[0])
		return
	}
	if !isInterrupted(err) || r.Status(err, 0) != ExitInterrupted {
		t.Errorf("%v, exit status %d", err, r.Status(err, 0))
	}
	c.wants(r, Failed)
}

// One daemon under two names: nobody can tell which of them it is, so that neither is served.
func TestSameNodeTwice(t *testing.T) {
	c := newCluster(t, 1, nil)
	cfg := c.config(newMemSource(true, random(1, 1000)))
	cfg.Nodes = append(cfg.Nodes, Peer{Name: "alias", Addrs: cfg.Nodes[0].Addrs})
	r, err := send(t, cfg)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("%s %s and alias %[2]s are one machine", cfg.Nodes[0].Name, cfg.Nodes[0].Addrs[0])
	for _, row := range r.Nodes {
		if row.State != Failed || row.Reason != want {
			t.Errorf("%s %s: %s, want %s", row.Node, row.State, row.Reason, want)
		}
	}
	if n := c.nodes[0].sink.published; n != 0 {
		t.Errorf("published %d times", n)
	}
}

// Small blobs go through without waiting for one another.
func TestManyBlobs(t *testing.T) {
	var blobs [][]byte
	for i := range 300 {
		blobs = append(blobs, []byte(fmt.Sprint("blob ", i)))
	}
	c := newCluster(t, 3, nil)
	r, err := send(t, c.config(newMemSource(true, blobs...)))
	if err != nil {
		t.Fatal(err)
	}
	c.wants(r, Committed, blobs...)
}

func TestPlainNeedsPolicy(t *testing.T) {
	c := newCluster(t, 2, func(i int, cfg *NodeConfig) { cfg.AllowPlain = i == 0 })
	cfg := c.config(newMemSource(true, random(1, 1000)))
	cfg.Plain = true
	r, err := send(t, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if r.Nodes[0].State != Committed || r.Nodes[1].State != Refused || !strings.Contains(r.Nodes[1].Reason, "plain") {
		t.Errorf("%+v", r.Nodes)
	}
}
