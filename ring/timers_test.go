package ring

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dolly-img/dolly-img/ring/identity"
	"github.com/dolly-img/dolly-img/ring/internal/memnet"
	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// memCluster is a cluster on an in-memory network, under fake time: its keys are
// made in the bubble, whose clock begins in the year 2000.
type memCluster struct {
	t   *testing.T
	net memnet.Net
	dir string
	cfg Config

	begun  time.Time
	events []Event
	dials  map[string][]time.Duration // of the server, since it began, by address

	dialing func(ctx context.Context, addr string, nth int)    // before each of them
	dialed  func(addr string, conn net.Conn) (net.Conn, error) // after
	bare    bool                                               // control without TLS
	log     *slog.Logger                                       // of the nodes
}

func newMemCluster(t *testing.T, src Source) *memCluster {
	t.Helper()
	c := &memCluster{t: t, dir: t.TempDir(), dials: map[string][]time.Duration{}}
	if err := identity.Init(c.dir, identity.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	id := c.load(identity.Sender)
	c.cfg = Config{
		Source:  src,
		TLS:     func(n string) *tls13 { return id.ClientConfig(ALPNControl, n) },
		DataTLS: func(n string) *tls13 { return id.ClientConfig(ALPNData, n) },
	}
	return c
}

func (c *memCluster) load(role identity.Role) *identity.Identity {
	id, err := identity.Load(c.dir, role)
	if err != nil {
		c.t.Fatal(err)
	}
	return id
}

// name adds a node to the plan, whether it is there or not.
func (c *memCluster) name(name string) {
	c.cfg.Nodes = append(c.cfg.Nodes, Peer{Name: name, Addrs: []string{name}})
}

// node starts a real one.
func (c *memCluster) node(name string) (*testNode, *memnet.Listener) {
	c.name(name)
	return c.start(name)
}

func (c *memCluster) start(name string) (*testNode, *memnet.Listener) {
	id := c.load(identity.Node)
	tn := &testNode{name: name, sink: newMemSink(), outcomes: make(chan Outcome, 1)}
	n, err := NewNode(NodeConfig{
		TLS:     id.ServerConfig(ALPNControl, ALPNData),
		DataTLS: func(node string) *tls13 { return id.ClientConfig(ALPNData, node) },

		Client:     clientOf,
		AllowPlain: c.bare,
		Accept:     func(context.Context, Request) (Sink, error) { return tn.sink, nil },
		Finished:   func(_ Request, o Outcome) { tn.outcomes <- o },

		Software: "dolly-img 1.2.0", Platform: "linux/amd64/v3", Log: c.log,
	})
	if err != nil {
		c.t.Fatal(err)
	}
	n.net.dial = c.net.Host(strings.TrimSuffix(name, ":1")).Dial
	if c.bare {
		bareControl(n)
	}
	tn.node = n
	l := c.net.Listen(name)
	go n.Serve(l)
	c.t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		n.Shutdown(ctx)
	})
	return tn, l
}

// puppet starts a node that does what the test says: it is given each message
// from the server on its control connection and answers with what is returned.
func (c *memCluster) puppet(name string, answer func(m wire.Message) []wire.Message) *memnet.Listener {
	return c.puppetBytes(name, func(m wire.Message) (out []byte) {
		for _, a := range answer(m) {
			b, _ := wire.Encode(a)
			out = append(out, b...)
		}
		return out
	})
}

// puppetBytes is puppet, for messages that this version does not have.
func (c *memCluster) puppetBytes(name string, answer func(m wire.Message) []byte) *memnet.Listener {
	c.name(name)
	l := c.net.Listen(name)
	conf := c.load(identity.Node).ServerConfig(ALPNControl, ALPNData)
	go func() {
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				conn := tls.Server(raw, conf)
				defer conn.Close()
				for {
					m, err := readMessage(conn)
					if err != nil {
						return
					}
					if _, err := conn.Write(answer(m)); err != nil {
						return
					}
				}
			}()
		}
	}()
	c.t.Cleanup(func() { l.Cut(); l.Close() })
	return l
}

func (c *memCluster) send() (*Report, error) {
	cfg := c.cfg
	cfg.OnEvent = func(ev Event) {
		c.events = append(c.events, ev)
		if c.cfg.OnEvent != nil {
			c.cfg.OnEvent(ev)
		}
	}
	s, err := newSender(cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	if c.bare {
		callBare(s)
	}
	c.begun = time.Now()
	var mu sync.Mutex
	host := c.net.Host("server")
	s.net.dial = func(ctx context.Context, addr string) (net.Conn, error) {
		mu.Lock()
		c.dials[addr] = append(c.dials[addr], time.Since(c.begun))
		nth := len(c.dials[addr])
		mu.Unlock()
		if c.dialing != nil {
			c.dialing(ctx, addr, nth)
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		conn, err := host.Dial(ctx, addr)
		if err == nil && c.dialed != nil {
			return c.dialed(addr, conn)
		}
		return conn, err
	}
	return s.run(c.t.Context())
}

// when is the time since the start of the first event of a node or link whose
// reason has a text in it, and what that reason is.
func (c *memCluster) when(of, text string) (time.Duration, string) {
	c.t.Helper()
	for _, ev := range c.events {
		if (ev.Node == of || ev.Link == of) && strings.Contains(ev.Reason, text) {
			return ev.Time.Sub(c.begun), ev.Reason
		}
	}
	c.t.Errorf("%s: no event says %q", of, text)
	return 0, ""
}

// greets answers the greeting, and what follows as the function says.
func greets(then func(m wire.Message) []wire.Message) func(wire.Message) []wire.Message {
	return func(m wire.Message) []wire.Message {
		if _, ok := m.(*wire.Hello); ok {
			return []wire.Message{&wire.Welcome{Version: wire.Version, Instance: wire.ID{1}, State: wire.StateNew}}
		}
		return then(m)
	}
}

func near(t *testing.T, what string, got, want time.Duration) {
	t.Helper()
	if got < want || got > want+time.Second/10 {
		t.Errorf("%s after %v, want %v", what, got, want)
	}
}

// A node that takes part and then says nothing any more is lost after 5 s, and
// those behind it get the rest.
func TestSilentNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newMemSource(true, random(1, 300_000))
		c := newMemCluster(t, src)
		a, _ := c.node("a:1")
		c.puppet("b:1", greets(func(m wire.Message) []wire.Message {
			if _, ok := m.(*wire.Offer); ok {
				return []wire.Message{&wire.Answer{Held: []int64{0}, Free: -1}}
			}
			return nil
		}))
		z, _ := c.node("z:1")
		start := time.Now()
		r, err := c.send()
		if err != nil {
			t.Fatal(err)
		}
		near(t, "ended", time.Since(start), 5*time.Second)
		if row := r.Nodes[1]; row.State != Failed || !strings.Contains(row.Reason, "silent for 5s") {
			t.Errorf("%+v", row)
		}
		a.check(t, r.Nodes[0], src.blobs...)
		z.check(t, r.Nodes[2], src.blobs...)
		if r.Count() != 2 {
			t.Errorf("%+v", r.Nodes)
		}
	})
}

// A node that does not answer the offer holds the start up for 5 s, no longer.
func TestStartDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newMemSource(true, random(1, 1000))
		c := newMemCluster(t, src)
		a, _ := c.node("a:1")
		c.puppet("mute:1", greets(func(m wire.Message) []wire.Message {
			if _, ok := m.(*wire.Ping); ok {
				return []wire.Message{&wire.Pong{}}
			}
			return nil
		}))
		start := time.Now()
		r, err := c.send()
		if err != nil {
			t.Fatal(err)
		}
		near(t, "ended", time.Since(start), 5*time.Second)
		if r.Nodes[1].State != Unreachable {
			t.Errorf("%+v", r.Nodes[1])
		}
		a.check(t, r.Nodes[0], src.blobs...)
	})
}

// With --wait a node that still boots is dialled until it is there; without, what
// is refused is unreachable at once.
func TestWait(t *testing.T) {
	for _, wait := range []time.Duration{0, 20 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			src := newMemSource(true, random(1, 1000))
			c := newMemCluster(t, src)
			c.cfg.Wait = wait
			c.node("a:1")
			c.name("late:1")
			late := make(chan *testNode, 1)
			boot := time.AfterFunc(7500*time.Millisecond, func() {
				n, _ := c.start("late:1")
				late <- n
			})
			defer boot.Stop()
			start := time.Now()
			r, err := c.send()
			if err != nil {
				t.Fatal(err)
			}
			if wait == 0 {
				near(t, "ended", time.Since(start), 0)
				if r.Nodes[1].State != Unreachable || !r.Nodes[0].State.Good() {
					t.Errorf("%+v", r.Nodes)
				}
				return
			}
			near(t, "ended", time.Since(start), 8*time.Second)
			(<-late).check(t, r.Nodes[1], src.blobs...)
			if r.Count() != 2 {
				t.Errorf("%+v", r.Nodes)
			}
		})
	}
}

// A node whose control connection broke between COMMIT and COMMITTED is asked for
// 15 s; then its row says what is known.
func TestCommitNotConfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newMemSource(true, random(1, 1000))
		c := newMemCluster(t, src)
		a, _ := c.node("a:1")
		var l *memnet.Listener
		l = c.puppet("b:1", greets(func(m wire.Message) []wire.Message {
			switch m.(type) {
			case *wire.Offer:
				return []wire.Message{&wire.Answer{Held: []int64{1000}, Free: -1}}
			case *wire.Start:
				return []wire.Message{&wire.Verified{Digests: []string{src.descs[0].Digest.String()}}}
			case *wire.Commit:
				l.Close()
				l.Cut()
			}
			return nil
		}))
		start := time.Now()
		r, err := c.send()
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took < 14*time.Second || took > 15*time.Second {
			t.Errorf("asked for %v", took)
		}
		if row := r.Nodes[1]; row.State != Failed || !strings.HasPrefix(row.Reason, "commit not confirmed") {
			t.Errorf("%+v", row)
		}
		a.check(t, r.Nodes[0], src.blobs...)
		if got := r.Status(err, 0); got != ExitPartial {
			t.Errorf("exit status %d", got)
		}
	})
}

// A node keeps the transfer of a server that is gone for 15 s, then drops all of it.
func TestOrphan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newMemSource(true, random(1, 300_000))
		stuck := make(chan struct{})
		src.read = func(_ int, off int64) {
			if off > 100_000 {
				<-stuck
			}
		}
		c := newMemCluster(t, src)
		a, l := c.node("a:1")
		s, err := newSender(c.cfg)
		if err != nil {
			t.Fatal(err)
		}
		s.net.dial = c.net.Dial
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.run(ctx)
		}()
		synctest.Wait() // everything that can happen has happened
		l.Close()       // the server cannot come back either
		cut := time.Now()
		l.Cut()
		o := <-a.outcomes
		near(t, "dropped", time.Since(cut), 15*time.Second)
		if o.State != Failed || a.sink.closed != 1 || a.sink.published != 0 {
			t.Errorf("%+v, sink closed %d times", o, a.sink.closed)
		}
		cancel()
		close(stuck)
		<-done
	})
}
