package ring

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/dolly-img/dolly-img/ring/identity"
	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// memStock has names, and keeps the wishes of each owner.
type memStock struct {
	mu     sync.Mutex
	names  map[string]digest.Digest
	owned  map[string]string // the warmer of a name
	wishes map[string][]Wish
	asked  int
	look   func(ctx context.Context) error // called while a question is answered; may be nil

	works   []Work
	tending func(ctx context.Context, got func(done, all int64)) (Tended, error) // may be nil
}

func (s *memStock) Holds(ctx context.Context, q Question) (h Holdings, err error) {
	s.mu.Lock()
	s.asked++
	s.mu.Unlock()
	if s.look != nil {
		if err := s.look(ctx); err != nil {
			return h, err
		}
	}
	for _, i := range q.Images {
		held := HeldImage{Name: i.Name, Digest: i.Digest, Named: s.names[i.Name], NameOwner: s.owned[i.Name], State: HoldsNone, Lacks: -1, Bytes: -1}
		if i.Digest == "" {
			held.Digest = held.Named
		}
		if held.Named == held.Digest && held.Named != "" {
			held.State, held.Lacks, held.Bytes = HoldsAll, 0, 5
		}
		held.Owners = s.wanting(i.Name)
		h.Images = append(h.Images, held)
	}
	h.Free = 7
	if q.All {
		for name, d := range s.names {
			h.Images = append(h.Images, HeldImage{Name: name, Digest: d, Named: d, NameOwner: s.owned[name], State: HoldsAll})
		}
	}
	return h, nil
}

// wanting is who wants an image by its name.
func (s *memStock) wanting(name string) (owners []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for owner, wishes := range s.wishes {
		if slices.ContainsFunc(wishes, func(w Wish) bool { return w.Name == name }) {
			owners = append(owners, owner)
		}
	}
	slices.Sort(owners)
	return owners
}

func (s *memStock) SetWishes(_ context.Context, owner string, wishes []Wish) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wishes == nil {
		s.wishes = map[string][]Wish{}
	}
	s.wishes[owner] = wishes
	return nil
}

// asker is what asks the nodes of a cluster.
func (c *memCluster) asker() *caller {
	c.t.Helper()
	a, err := newAsker(c.cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	a.net.dial = c.net.Host("asker").Dial
	return a
}

// as has a node take every client for one of a role, with this name.
func (n *testNode) as(name string, role Role) {
	cfg := *n.node.config()
	cfg.Client = func(tls.ConnectionState) (string, Role) { return name, role }
	n.node.cfg.Store(&cfg)
}

func (n *testNode) stock(s Stock) {
	cfg := *n.node.config()
	cfg.Stock = s
	n.node.cfg.Store(&cfg)
}

// unwell adds nodes to the cluster with each of which something is wrong. One hangs until release is closed.
func (c *memCluster) unwell(release chan struct{}) {
	c.node("bare:1")
	broken, _ := c.node("broken:1")
	broken.stock(&memStock{look: func(context.Context) error { return errors.New("disk \x1b broken") }})
	slow, _ := c.node("slow:1")
	slow.stock(&memStock{look: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }})
	hung, _ := c.node("hung:1")
	hung.stock(&memStock{look: func(context.Context) error { <-release; return nil }})
	answer := func(version int, with ...wire.Message) func(m wire.Message) []wire.Message {
		return func(m wire.Message) []wire.Message {
			if _, ok := m.(*wire.Hello); ok {
				return []wire.Message{&wire.Welcome{Version: version, Instance: wire.ID{1}, State: wire.StateNew, Software: "dolly-img 1.2"}}
			}
			return with
		}
	}
	c.puppet("old:1", answer(6))
	c.puppet("silent:1", answer(wire.Version))
	c.puppet("liar:1", answer(wire.Version, &wire.Holds{Images: []wire.Holding{{Name: "x/b:1", State: wire.HoldsAll}}}))
	c.puppet("confused:1", answer(wire.Version, &wire.Wanted{}))
	c.puppet("mute:1", func(wire.Message) []wire.Message { return nil })
	c.name("gone:1")
	c.cfg.Nodes = append(c.cfg.Nodes, Peer{Name: "nameless", Err: errors.New("name not resolved")})
}

// Every node has a reply, whatever is wrong with it, and nobody is waited for for long. A transfer that is under way goes on.
func TestAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, newMemSource(true, random(1, 100_000)))
		a, _ := c.node("a:1")
		one, other := digest.FromString("one"), digest.FromString("other")
		stock := &memStock{names: map[string]digest.Digest{"x/a:1": one}, owned: map[string]string{"x/a:1": "head1"}}
		a.stock(stock)
		begun, release := make(chan struct{}), make(chan struct{})
		a.sink.fail = func(what string, _ int) error {
			if what == "begin" {
				close(begun)
				<-release
			}
			return nil
		}
		sent := make(chan *Report)
		go func() { r, _ := c.send(); sent <- r }()
		<-begun

		c.unwell(release)
		start := time.Now()
		replies, err := c.asker().askAll(t.Context(), Question{Images: []Image{{"x/a:1", ""}, {"x/a:1", other}, {"", one}}})
		if err != nil {
			t.Fatal(err)
		}
		near(t, "asked", time.Since(start), 25*time.Second)
		got := map[string]string{}
		for _, r := range replies {
			got[r.Node] = fmt.Sprint(r.State, "|", r.Cause.Fault, "|", r.Cause.String())
		}
		for node, want := range map[string]string{
			"a:1":        "||",
			"bare:1":     "refused|denied|this node keeps no images",
			"broken:1":   `failed||disk \x1b broken`,
			"slow:1":     "failed||context deadline exceeded",
			"hung:1":     "failed||does not answer in 25s",
			"old:1":      "refused|old|speaks protocol 6 (dolly-img 1.2), and such a question is of protocol 7: upgrade the nodes first",
			"silent:1":   "failed||silent for 5s",
			"liar:1":     "failed||answers something else than it was asked",
			"confused:1": "failed||answers something else than it was asked",
			"mute:1":     "unreachable|hangs|10.0.0.11:9998 takes the connection and does not answer in 5s",
			"gone:1":     "unreachable||cannot connect to gone:1: no route",
			"nameless":   "unreachable|name|name not resolved",
		} {
			if node == "gone:1" { // in the words of the in-memory network
				got[node], want = got[node][:12], want[:12]
			}
			if got[node] != want {
				t.Errorf("%s: %s\nwant %s", node, got[node], want)
			}
		}
		want := []HeldImage{
			{Name: "x/a:1", Digest: one, State: HoldsAll, Named: one, NameOwner: "head1", Bytes: 5},
			{Name: "x/a:1", Digest: other, State: HoldsNone, Named: one, NameOwner: "head1", Bytes: -1, Lacks: -1},
			{Digest: one, State: HoldsNone, Bytes: -1, Lacks: -1},
		}
		if h := replies[0].Holdings; !reflect.DeepEqual(h.Images, want) || h.Free != 7 || !want[0].Warm() || want[1].Warm() {
			t.Errorf("%+v", h)
		}
		if replies[0].Software != "dolly-img 1.2.0" {
			t.Errorf("%+v", replies[0])
		}
		close(release)
		if r := <-sent; !r.Nodes[0].State.Good() {
			t.Errorf("%+v", r.Nodes[0])
		}
	})
}

// A certificate permits what its role does, and nothing of a refused message reaches the store or the policy.
func TestRoles(t *testing.T) {
	wish := []Wish{{"x/a:1", digest.FromString("one"), true, 2}}
	t.Run("a warmer with the name of the node's own owner", func(t *testing.T) {
		cfg := &NodeConfig{Stock: &memStock{}}
		if ne := setWishes(t.Context(), cfg, Client{Name: OwnerLocal, Role: RoleWarmer}, &wire.Want{Owner: OwnerLocal}); ne == nil || ne.Code != wire.CodeAuth {
			t.Error(ne)
		}
	})
	for role, may := range map[Role]struct{ transfer, own, other bool }{
		RoleSender: {true, true, true},
		RoleWarmer: {true, true, false},
		RoleViewer: {},
		"":         {},
		"node":     {},
	} {
		t.Run("role "+string(role), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newMemCluster(t, newMemSource(true, []byte("x")))
				n, _ := c.node("a:1")
				stock := &memStock{}
				n.stock(stock)
				n.as("me", role)
				var requests []Request
				accept := n.node.config().Accept
				n.node.config().Accept = func(ctx context.Context, r Request) (Sink, error) {
					requests = append(requests, r)
					return accept(ctx, r)
				}
				if r, err := c.asker().askAll(t.Context(), Question{All: true}); err != nil || r[0].State != "" {
					t.Errorf("asks: %+v, %v", r, err)
				}
				for owner, allowed := range map[string]bool{"me": may.own, "another": may.other} {
					m := &wire.Want{Owner: owner, Images: []wire.Wish{wire.Wish(wish[0])}}
					r, err := c.asker().questionAll(t.Context(), m)
					if err != nil || (r[0].State == "") != allowed || !allowed && (r[0].State != Refused || !strings.Contains(r[0].Cause.String(), string(role))) {
						t.Errorf("wishes of %s: %+v, %v", owner, r, err)
					}
					if got := stock.wishes[owner]; (got != nil) != allowed || allowed && !slices.Equal(got, wish) {
						t.Errorf("wishes of %s: %v", owner, got)
					}
				}
				r, err := c.send()
				if err != nil || r.Nodes[0].State.Good() != may.transfer {
					t.Fatalf("%+v, %v", r.Nodes[0], err)
				}
				if !may.transfer {
					if row := r.Nodes[0]; row.State != Refused || row.Code != "auth" || len(requests) > 0 {
						t.Errorf("%+v, %d requests", row, len(requests))
					}
				} else if q := requests[0]; q.Sender != "me" || q.Role != role || q.Certificate == nil {
					t.Errorf("%+v", q)
				}
			})
		})
	}
}

// Two who ask without end over many connections, and read none of the answers, keep another one waiting for a question each, and
// are answered no more than they read.
func TestAskFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := rivals(t, newMemSource(true, []byte("x")))
		a, _ := c.node("a:1")
		stock := &memStock{names: map[string]digest.Digest{}, look: func(context.Context) error { time.Sleep(100 * time.Millisecond); return nil }}
		for i := range 300 {
			stock.names[fmt.Sprintf("x/%s:%d", strings.Repeat("a", 400), i)] = digest.FromString("x")
		}
		a.stock(stock)
		ask, _ := wire.Encode(&wire.Ask{All: true})
		hello, _ := wire.Encode(&wire.Hello{Min: ProtocolMin, Max: ProtocolMax, Transfer: wire.ID{1}, Node: "a:1"})
		const floods = 10
		for i := range floods {
			conn := c.asSender("a:1") // of another key than c's
			if i%2 > 0 {
				raw, err := c.net.Host("viewer").Dial(t.Context(), "a:1")
				if err != nil {
					t.Fatal(err)
				}
				defer raw.Close()
				conn = tls.Client(raw, c.load(identity.Viewer).ClientConfig(ALPNControl, "a:1"))
			}
			if err := conn.Handshake(); err != nil {
				t.Fatal(err)
			}
			go func() {
				conn.Write(hello)
				conn.Write(bytes.Repeat(ask, 100))
			}()
		}
		synctest.Wait()
		start := time.Now()
		r, err := c.asker().askAll(t.Context(), Question{Images: []Image{{Name: "x/a:1"}}})
		// The question that is being answered, and one of each other key, come before it.
		if err != nil || r[0].State != "" || time.Since(start) > 350*time.Millisecond {
			t.Errorf("after %v: %+v, %v", time.Since(start), r, err)
		}
		time.Sleep(floods * time.Second)
		stock.mu.Lock()
		defer stock.mu.Unlock()
		if stock.asked > floods+1 {
			t.Errorf("%d answers for %d connections that read none", stock.asked, floods)
		}
	})
}

// A connection may ask as often as it likes, also long questions, and what is refused on it fills no log.
func TestManyQuestions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, newMemSource(true, []byte("x")))
		a, _ := c.node("a:1")
		a.stock(&memStock{})
		var log bytes.Buffer
		a.node.log = slog.New(slog.NewTextHandler(&log, nil))
		hello := &wire.Hello{Min: ProtocolMin, Max: ProtocolMax, Transfer: wire.ID{1}, Node: "a:1"}
		conn := c.asSender("a:1")
		say(t, conn, hello)
		long := &wire.Ask{Images: slices.Repeat([]wire.Image{{Name: strings.Repeat("a", wire.MaxName)}}, 200)}
		for range 2 * maxLong {
			if h, ok := say(t, conn, long).(*wire.Holds); !ok || len(h.Images) != 200 {
				t.Fatalf("%+v", h)
			}
		}
		a.as("me", RoleViewer)
		conn = c.asSender("a:1")
		say(t, conn, hello)
		for range 3 {
			if w, ok := say(t, conn, &wire.Want{Owner: "me"}).(*wire.Wanted); !ok || w.Code != wire.CodeAuth {
				t.Errorf("%+v", w)
			}
		}
		if log.Len() > 0 {
			t.Errorf("logged:\n%s", log.String())
		}
	})
}

// A key asks so many questions at once, and so many each second, over however many connections. Nobody else waits for that.
func TestAskRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := rivals(t, newMemSource(true, []byte("x")))
		a, _ := c.node("a:1")
		a.stock(&memStock{})
		begun := time.Now()
		hello := &wire.Hello{Min: ProtocolMin, Max: ProtocolMax, Transfer: wire.ID{1}, Node: "a:1"}
		const conns, each = 4, 21
		var asking sync.WaitGroup
		for range conns {
			conn := c.asSender("a:1")
			say(t, conn, hello)
			asking.Go(func() {
				for range each {
					say(t, conn, &wire.Ask{All: true})
				}
			})
		}
		synctest.Wait() // until they rest
		if r, err := c.asker().askAll(t.Context(), Question{All: true}); err != nil || r[0].State != "" {
			t.Errorf("%+v, %v", r, err)
		}
		near(t, "another key", time.Since(begun), 0)
		asking.Wait()
		near(t, "all", time.Since(begun), (conns*each-asksAtOnce)*askTime)
	})
}

// What a node says is shown on a terminal, and so has no control characters, whoever is that node.
func TestHoldingsPrintable(t *testing.T) {
	ask, r := &wire.Ask{All: true}, Reply{}
	r.take(ask, &wire.Holds{Images: []wire.Holding{{Name: "x\x1b[2J", State: wire.HoldsNone, NameOwner: "n\t", Owners: []string{"o\n"}, Why: "\a"}}})
	if got := fmt.Sprintf("%q", fmt.Sprint(r.Images[0].Name, r.Images[0].NameOwner, r.Images[0].Owners, r.Images[0].Why)); got != fmt.Sprintf("%q", `x\x1b[2Jn\t[o\n]\a`) {
		t.Errorf("%s", got)
	}
}
