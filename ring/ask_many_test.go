package ring

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/dolly-img/dolly-img/ring/identity"
)

// More nodes than are asked beside each other take the connection and say nothing, all of them at the beginning of the list. The
// others answer, and are not taken for silent because they had to wait for those.
func TestAskSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many, silent = 500, maxAsked + 50
		c := newMemCluster(t, nil)
		some := digest.FromString("some")
		stock := &memStock{names: map[string]digest.Digest{"x/a:1": some}}
		for i := range many {
			name := fmt.Sprintf("n%04d:1", i)
			c.name(name)
			l := c.net.Listen(name)
			t.Cleanup(func() { l.Cut(); l.Close() })
			if i < silent {
				go func() {
					for {
						if _, err := l.Accept(); err != nil {
							return
						}
					}
				}()
				continue
			}
			n, err := NewNode(NodeConfig{
				TLS: &tls.Config{}, DataTLS: func(string) *tls.Config { return nil }, Client: clientOf, Stock: stock,
				Accept: func(context.Context, Request) (Sink, error) { return nil, ErrBusy },
			})
			if err != nil {
				t.Fatal(err)
			}
			bareControl(n)
			go n.Serve(l)
			t.Cleanup(func() { n.Shutdown(t.Context()) })
		}
		a := c.asker()
		a.secure = func(_ context.Context, raw net.Conn, _ string) (net.Conn, error) { return raw, nil }
		begun := time.Now()
		replies, err := a.askAll(t.Context(), Question{Images: []Image{{Name: "x/a:1"}}})
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range replies {
			switch {
			case i < silent && r.State != Unreachable:
				t.Errorf("%s: %+v", r.Node, r)
			case i >= silent && (r.State != "" || !r.Images[0].Warm()):
				t.Errorf("%s: %+v", r.Node, r)
			}
		}
		near(t, "asked", time.Since(begun), 10*time.Second) // two turns of silent ones
	})
}

// BenchmarkAsk asks 200 nodes in this process about 20 images each, over loopback and TLS. Both ends are in the figures.
func BenchmarkAsk(b *testing.B) {
	const many = 200
	server, err := identity.Load(keys(), identity.Viewer)
	if err != nil {
		b.Fatal(err)
	}
	node, err := identity.Load(keys(), identity.Node)
	if err != nil {
		b.Fatal(err)
	}
	cfg := Config{TLS: func(n string) *tls.Config { return server.ClientConfig(ALPNControl, n) }}
	stock := &memStock{names: map[string]digest.Digest{}}
	var q Question
	for i := range 20 {
		name := fmt.Sprintf("registry.example/team/app:%d", i)
		stock.names[name] = digest.FromString(name)
		q.Images = append(q.Images, Image{name, stock.names[name]})
	}
	for i := range many {
		n, err := NewNode(NodeConfig{
			TLS: node.ServerConfig(ALPNControl, ALPNData), DataTLS: func(string) *tls.Config { return nil }, Client: clientOf, Stock: stock,
			Accept: func(context.Context, Request) (Sink, error) { return nil, ErrBusy },
		})
		if err != nil {
			b.Fatal(err)
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		go n.Serve(l)
		b.Cleanup(func() { n.Shutdown(context.Background()) })
		cfg.Nodes = append(cfg.Nodes, Peer{Name: fmt.Sprint("n", i), Addrs: []string{l.Addr().String()}})
	}
	for b.Loop() {
		replies, err := Ask(b.Context(), cfg, q)
		if err != nil {
			b.Fatal(err)
		}
		for _, r := range replies {
			if r.State != "" || !r.Images[19].Warm() {
				b.Fatalf("%+v", r)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/many, "µs/node")
}
