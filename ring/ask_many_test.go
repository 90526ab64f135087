package ring

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
)

// Nodes are asked about 20 images each, and told what to keep, over a connection each. More of them than are asked beside each other take the connection and
// say nothing, all of them at the beginning of the list. The others answer, and are not taken for silent because they had to wait for those.
func TestQuerySilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many, silent, images = 400, maxAsked + 44, 20
		c := newMemCluster(t, nil)
		some := digest.FromString("some")
		queries, stocks := make([]NodeQuery, many), make([]*memStock, many)
		for i := range many {
			name := fmt.Sprintf("n%04d:1", i)
			c.name(name)
			l := c.net.Listen(name)
			t.Cleanup(func() { l.Cut(); l.Close() })
			q := &Question{}
			stocks[i] = &memStock{names: map[string]digest.Digest{}}
			for k := range images {
				q.Images = append(q.Images, Image{fmt.Sprintf("x/%d:%d", i, k), some})
				stocks[i].names[q.Images[k].Name] = some
			}
			queries[i] = NodeQuery{&Wants{"me", []Wish{{Name: name, Digest: some}}}, q}
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
				TLS: &tls.Config{}, DataTLS: func(string) *tls.Config { return nil }, Client: clientOf, Stock: stocks[i],
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
		begun, times := time.Now(), make([][]time.Duration, many)
		a.queryAll(t.Context(), queries, func(i int, r Reply) {
			times[i] = append(times[i], time.Since(begun)) // each i is another element
			switch {
			case i < silent && r.State != Unreachable:
				t.Errorf("%s: %+v", r.Node, r)
			case i >= silent && (r.State != "" || len(r.Images) != images || !r.Images[0].Warm() || !r.Images[images-1].Warm()):
				t.Errorf("%s: %+v", r.Node, r)
			}
		})
		near(t, "asked", time.Since(begun), timings.turn+timings.startLimit) // the silent ones that were asked last
		for i, at := range times {
			if len(at) != 1 || i >= silent && at[0] > timings.turn+time.Second {
				t.Errorf("node %d: told after %v", i, at)
			}
			if w := stocks[i].wishes["me"]; i >= silent && !slices.Equal(w, queries[i].Wants.Wishes) {
				t.Errorf("node %d: wishes %v", i, w)
			}
		}
	})
}
