package ring

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dolly-img/dolly-img/ring/identity"
	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// wrong opens a port at which something else answers than the node that is meant.
func (c *memCluster) wrong(name, kind string) {
	l := c.net.Listen(name)
	of := c
	if kind == "foreign" {
		of = newMemCluster(c.t, newMemSource(true, nil))
	}
	conf := of.load(identity.Node).ServerConfig(ALPNControl, ALPNData)
	c.t.Cleanup(func() { l.Close(); l.Cut() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			switch kind {
			case "ends":
				conn.Close()
			case "no TLS":
				io.WriteString(conn, "SSH-2.0-OpenSSH_9.9\r\n")
			case "mute":
			case "foreign", "proven and mute":
				go func() {
					defer conn.Close()
					io.Copy(io.Discard, tls.Server(conn, conf))
				}()
			default:
				panic(kind)
			}
		}
	}()
}

// Whatever answers at the first address of a node, its second is tried, on control and on links; what takes the connection and
// does nothing costs its share of the time.
func TestSecondAddress(t *testing.T) {
	for kind, takes := range map[string]time.Duration{
		"nobody": 0, "frozen": 3 * time.Second, "ends": 0, "no TLS": 0, "foreign": 0,
		"mute":            3 * time.Second,         // 2 s for control, 1 s for a link
		"proven and mute": 3375 * time.Millisecond, // it is asked for half of 4.75 s
	} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src := newMemSource(true, random(1, 300_000))
				c := newMemCluster(t, src)
				switch kind {
				case "nobody":
				case "frozen":
					c.net.Freeze("wrong")
				default:
					c.wrong("wrong:1", kind)
				}
				var nodes []*testNode
				for i, name := range []string{"a:1", "b:1"} {
					n, _ := c.node(name)
					nodes = append(nodes, n)
					c.cfg.Nodes[i].Addrs = []string{"wrong:1", name}
				}
				start := time.Now()
				r, err := c.send()
				if err != nil {
					t.Fatal(err)
				}
				near(t, "committed", time.Since(start), takes)
				for i, n := range nodes {
					if r.Nodes[i].State != Committed {
						t.Errorf("%+v", r.Nodes[i])
					}
					n.check(t, r.Nodes[i], src.blobs...)
				}
			})
		})
	}
}

// A node that is slow at its first address is asked at one of them only, for one transfer.
func TestAddressesOfOneNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newMemSource(true, random(1, 300_000))
		c := newMemCluster(t, src)
		a, _ := c.node("a:1")
		go a.node.Serve(c.net.Listen("far:1"))
		c.cfg.Nodes[0].Addrs = []string{"far:1", "a:1"}
		for _, d := range []time.Duration{0, 100, 400, 700, 900, 1100, 1500} {
			c.net.Shape("server", "far", 0, d*time.Millisecond)
			c.net.Shape("far", "server", 0, d*time.Millisecond)
			a.sink = newMemSink()
			r, err := c.send()
			if err != nil {
				t.Fatal(err)
			}
			if r.Nodes[0].State != Committed {
				t.Errorf("%v away: %+v", d*time.Millisecond, r.Nodes[0])
			}
			a.check(t, r.Nodes[0], src.blobs...)
			<-a.outcomes
		}
	})
}

// When a node is found at none of its addresses, its row says of each why.
func TestNoAddressLeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, newMemSource(true, random(1, 1000)))
		c.wrong("mute:1", "mute")
		c.wrong("foreign:1", "foreign")
		for i, addrs := range []string{"none:1 nobody:1", "none:1 mute:1", "none:1 foreign:1"} {
			c.cfg.Nodes = append(c.cfg.Nodes, Peer{Name: fmt.Sprint(i), Addrs: strings.Fields(addrs)})
		}
		r, err := c.send()
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []Row{
			{State: Unreachable, Cause: Cause{FaultPort, "connection refused by ", "none:1 or nobody:1", ""}},
			{State: Unreachable, Cause: Cause{FaultPort, "connection refused by none:1; 10.0.0.1:9998 takes the connection and does not answer in 5s", "", ""}},
			{State: Refused, Cause: Cause{FaultForeign, "connection refused by none:1; its certificate is of another cluster: ", "", ""}},
		} {
			got := r.Nodes[i]
			if got.State != want.State || got.Cause.Fault != want.Cause.Fault || !strings.HasPrefix(got.Reason, want.Cause.String()) || got.Cause.Addr != want.Cause.Addr {
				t.Errorf("%s: %+v, want %+v", got.State, got.Cause, want)
			}
		}
		net1 := transport{dial: c.net.Host("a").Dial}
		start := time.Now()
		_, err = net1.openLink(t.Context(), []string{"none:1", "mute:1"}, c.cfg.DataTLS("b"), wire.LinkHello{}, secret())
		if want := "none:1: connection refused; mute:1: i/o timeout"; err == nil || err.Error() != want {
			t.Errorf("link: %v, want %s", err, want)
		}
		near(t, "link down", time.Since(start), 2*time.Second)
	})
}

// Of the addresses of a peer that all hang no more than four are tried beside each other, and each gets its turn.
func TestManyAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), timings.link)
		defer cancel()
		var tried, beside, most atomic.Int64
		_, errs := firstOf(ctx, make([]string, 16), func(ctx context.Context, _ string) (net.Conn, error) {
			tried.Add(1)
			most.Store(max(most.Load(), beside.Add(1)))
			<-ctx.Done()
			beside.Add(-1)
			return nil, ctx.Err()
		})
		if len(errs) != 16 || tried.Load() != 16 || most.Load() > maxBeside+1 { // one may not know yet that it is given up
			t.Errorf("%d addresses were tried, %d beside each other: %v", tried.Load(), most.Load(), errs)
		}
	})
}

// 600 nodes that take the connection and stay silent hold up those behind them for a moment only: of 64 at a
// time each does so for 50 ms.
func TestSilentNodesHoldNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newMemSource(true, random(1, 1000))
		c := newMemCluster(t, src)
		const silent, good = 600, 64
		for i := range silent {
			name := fmt.Sprintf("mute%03d:1", i)
			c.name(name)
			c.wrong(name, "mute")
		}
		var asked, late atomic.Int64 // how many of the good were, and when the last
		for i := range good {
			n, _ := c.node(fmt.Sprintf("good%02d:1", i))
			accept := n.node.config().Accept
			n.node.config().Accept = func(ctx context.Context, r Request) (Sink, error) {
				asked.Add(1)
				late.Store(int64(time.Since(c.begun)))
				return accept(ctx, r)
			}
		}
		c.cfg.Check = true
		r, err := c.send()
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Duration(late.Load()); asked.Load() != good || took > 600*time.Millisecond {
			t.Errorf("%d were asked, the last after %v", asked.Load(), took)
		}
		for i, row := range r.Nodes {
			if i < silent && (row.State != Unreachable || row.Cause.Fault != FaultHangs) || i >= silent && row.State != Pending {
				t.Errorf("%+v", row)
			}
		}
	})
}

// A node whose name has many addresses is reached at one of the first 16, and the others are left out, by a server and by a node.
func TestAddressesLeftOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, newMemSource(true, random(1, 1000)))
		c.node("a:1")
		c.node("b:1")
		for i := range c.cfg.Nodes {
			p := &c.cfg.Nodes[i]
			for n := range 100 {
				p.Addrs = append(p.Addrs, fmt.Sprintf("nobody%d:1", n))
			}
		}
		r, err := c.send()
		if err != nil || !r.Nodes[0].State.Good() || !r.Nodes[1].State.Good() {
			t.Errorf("%+v, %v", r, err)
		}
		if n := len(c.cfg.Nodes[0].Addrs); n != 101 {
			t.Errorf("the caller's node has %d addresses", n)
		}
	})
	// A server of version 4 may name 64.
	synctest.Test(t, func(t *testing.T) {
		src := newMemSource(true, []byte("x"))
		c := newMemCluster(t, src)
		c.node("a:1")
		addrs := make([]string, 64)
		for i := range addrs {
			addrs[i] = fmt.Sprintf("nobody%d:1", i)
		}
		conn := c.asSender("a:1")
		say(t, conn, &wire.Hello{Min: ProtocolMin, Max: ProtocolMax, Transfer: wire.ID{1}, Node: "a:1"})
		if a, ok := say(t, conn, &wire.Offer{Blobs: src.descs, Meta: []byte("{}")}).(*wire.Answer); !ok || a.Code != wire.CodeNone {
			t.Fatalf("%+v", a)
		}
		start, _ := wire.Encode(&wire.Start{})
		conn.Write(start)
		for name, m := range map[string]wire.Message{"DIAL": &wire.Dial{Link: 7, Generation: 7, Addrs: addrs, Needs: [][2]int64{{0, 0}}}, "PROBE": &wire.Probe{Addrs: addrs}} {
			code, reason := wire.CodeNone, ""
			for answered := false; !answered; {
				switch a := say(t, conn, m).(type) {
				case *wire.Link:
					code, reason, answered = a.Code, a.Reason, true
				case *wire.Probed:
					code, reason, answered = a.Code, a.Reason, true
				case *wire.Fail:
					code, reason, answered = a.Code, a.Reason, true
				}
				m = &wire.Ping{}
			}
			if code != wire.CodeNetwork || strings.Count(reason, "nobody") != 16 {
				t.Errorf("%s: %s: %s", name, code, reason)
			}
		}
	})
}
