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
