package ring

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/simcheck"
	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/opencontainers/go-digest"
)

// In one simulation of four, nodes are asked, and told what to keep, while the transfer runs: by two who take what they are
// told for true, and by one who does not behave. What becomes of the transfer is judged as without them.

const (
	simAsks   = 12 // times that each of them asks, at most
	simStocks = 3  // images that a node has
)

func (s *simCase) asks() bool { return s.Seed%4 == 3 }

// simImage is an image of a node, which has the first simStocks of them.
func simImage(node string, nth int) Image {
	name := fmt.Sprintf("x/%s:%d", node, nth)
	return Image{name, digest.FromString(name)}
}

// stock is what a node has. It outlives the processes of the node.
func (s *simCase) stock(node string) Stock {
	if !s.asks() {
		return nil
	}
	stock := &memStock{names: map[string]digest.Digest{}, owned: map[string]string{}}
	for nth := range simStocks {
		image := simImage(node, nth)
		stock.names[image.Name], stock.owned[image.Name] = image.Digest, "warmer of "+node
	}
	return stock
}

// ask has the nodes asked until the result is called, and what was asked by then answered. All that is begun is in work.
func (s *sim) ask(over context.Context, work *sync.WaitGroup) (enough func()) {
	during, enough := context.WithCancel(over)
	if s.sc.asks() {
		for i := range 2 {
			asker := simAsker{sim: s, rand: rand.New(rand.NewPCG(s.sc.Seed, uint64(i))), owner: fmt.Sprint("asker", i), told: map[string]Wish{}, doubt: map[string]bool{}}
			work.Go(func() { asker.run(during) })
		}
		work.Go(func() { s.rude(during, work) })
	}
	return enough
}

// pause waits for the next moment to ask. Half of the pauses are shorter than what the transfer takes without faults.
func (s *sim) pause(during context.Context, r *rand.Rand) bool {
	frames := 2
	for _, b := range s.blobs {
		frames += len(b.data) / simFrame
	}
	most := time.Duration(frames*s.sc.Pace) * time.Microsecond / 8 << r.IntN(8)
	select {
	case <-time.After(time.Duration(r.Int64N(int64(most)))):
		return during.Err() == nil
	case <-during.Done():
		return false
	}
}

// simAsker asks some nodes at a time, and tells most of them its wishes before.
type simAsker struct {
	sim   *sim
	rand  *rand.Rand
	owner string
	told  map[string]Wish // by node, what it was told last
	doubt map[string]bool // a node did not answer, so that what it was told then may come late
}

func (a *simAsker) run(during context.Context) {
	for nth := 0; nth < simAsks && a.sim.pause(during, a.rand); nth++ {
		cfg := Config{TLS: func(string) *tls.Config { return nil }}
		var queries []NodeQuery
		var asked []*simNode
		for _, n := range a.sim.nodes[1:] {
			if a.rand.IntN(3) > 0 || a.sim.machine(n) != n.name {
				continue
			}
			asked = append(asked, n)
			cfg.Nodes = append(cfg.Nodes, Peer{Name: n.name, Addrs: []string{n.name + ":1"}})
			queries = append(queries, a.query(n, nth))
		}
		if len(asked) == 0 {
			continue
		}
		c, err := newAsker(cfg)
		if err != nil {
			a.sim.t.Error(err)
			return
		}
		c.net.dial = a.sim.net.Host("asker").Dial
		c.secure = func(_ context.Context, raw net.Conn, _ string) (net.Conn, error) { return raw, nil }
		replies := make([]Reply, len(asked))
		c.queryAll(context.Background(), queries, func(i int, r Reply) { replies[i] = r })
		for i, n := range asked {
			a.check(n, queries[i].Question, replies[i])
		}
	}
}

// query is about an image of the node, one of another node, and what the node was told to keep.
func (a *simAsker) query(n *simNode, nth int) (q NodeQuery) {
	if a.rand.IntN(4) > 0 {
		image := simImage(a.owner, nth)
		a.told[n.name] = Wish{Name: image.Name, Digest: image.Digest}
		q.Wants = &Wants{a.owner, []Wish{a.told[n.name]}}
	}
	other := a.sim.nodes[1+a.rand.IntN(len(a.sim.nodes)-1)]
	q.Question = &Question{All: a.rand.IntN(3) == 0, Images: []Image{simImage(n.name, a.rand.IntN(2*simStocks)), simImage(other.name, 0)}}
	if told := a.told[n.name].Name; told != "" {
		q.Question.Images = append(q.Question.Images, Image{Name: told})
	}
	return q
}

// sick reports whether a node may leave a question without an answer. Its storage and the network of the ring have no part in one.
func (s *sim) sick(n *simNode) bool {
	return slices.ContainsFunc(s.sc.Faults, func(f fault) bool {
		switch f.What {
		case simcheck.Kill, simcheck.Return, simcheck.Freeze, simcheck.Pause, simcheck.Late, simcheck.Rogue, simcheck.Liar:
			return f.Node == n.index
		}
		return false
	})
}

// check judges a reply.
func (a *simAsker) check(n *simNode, q *Question, r Reply) {
	if r.State != "" {
		if a.doubt[n.name] = true; !a.sim.sick(n) {
			a.sim.t.Errorf("%s at %v: no answer: %s, %s", n.name, time.Since(a.sim.start), r.State, r.Cause)
		}
		return
	}
	has := func(i HeldImage) bool {
		return strings.HasPrefix(i.Name, "x/"+n.name+":") && i.Name < simImage(n.name, simStocks).Name
	}
	right := r.Node == n.name && r.Free == 7
	for i, h := range r.Images {
		want := HeldImage{Name: h.Name, State: HoldsNone, Bytes: -1, Lacks: -1}
		switch {
		case i < len(q.Images) && h.Name != q.Images[i].Name, i >= len(q.Images) && !has(h):
			right = false
		case i < len(q.Images):
			want.Digest = q.Images[i].Digest
		}
		if has(h) {
			want.Digest, want.Named, want.State = digest.FromString(h.Name), digest.FromString(h.Name), HoldsAll
			want.NameOwner = "warmer of " + n.name
		}
		if told := a.told[n.name].Name; told == h.Name && (!a.doubt[n.name] || len(h.Owners) > 0) {
			want.Owners = []string{a.owner}
		}
		right = right && h.Digest == want.Digest && h.Named == want.Named && h.NameOwner == want.NameOwner && h.State == want.State && slices.Equal(h.Owners, want.Owners)
	}
	most := len(q.Images)
	if q.All {
		most += simStocks
	}
	if !right || len(r.Images) != most {
		a.sim.t.Errorf("%s at %v: asked %+v, with the wish %+v: %+v", n.name, time.Since(a.sim.start), *q, a.told[n.name], r)
	}
}

// rude connects to nodes now and then, and does not behave.
func (s *sim) rude(during context.Context, work *sync.WaitGroup) {
	r := rand.New(rand.NewPCG(s.sc.Seed, 2))
	for nth := 0; nth < simAsks && s.pause(during, r); nth++ {
		n, how := s.nodes[1+r.IntN(len(s.nodes)-1)], r.IntN(5)
		work.Go(func() {
			if conn, err := s.net.Host("rude").Dial(during, n.name+":1"); err == nil {
				defer conn.Close()
				defer context.AfterFunc(during, func() { conn.Close() })()
				if rudely(conn, n.name, how) {
					<-during.Done()
				}
			}
		})
	}
}

// rudely does one of five things on a connection, which then stays open if the result is true.
func rudely(conn net.Conn, node string, how int) (stays bool) {
	hello, _ := wire.Encode(&wire.Hello{Min: ProtocolMin, Max: ProtocolMax, Transfer: wire.ID{1}, Node: node})
	long, _ := wire.Encode(&wire.Ask{All: true, Images: slices.Repeat([]wire.Image{wire.Image(simImage(node, 0))}, 200)})
	short, _ := wire.Encode(&wire.Ask{All: true})
	switch how {
	case 0: // says nothing
	case 1: // says half a question
		conn.Write(slices.Concat(hello, long[:len(long)/2]))
	case 2: // never reads an answer
		conn.Write(append(hello, bytes.Repeat(long, 20)...))
	case 3: // asks faster than a key may
		conn.Write(append(hello, bytes.Repeat(short, asksAtOnce+20)...))
		io.Copy(io.Discard, conn)
	case 4: // goes away amid an answer
		conn.Write(slices.Concat(hello, long))
		io.ReadFull(conn, make([]byte, 300))
		return false
	}
	return true
}
