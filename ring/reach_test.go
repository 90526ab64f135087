package ring

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// island starts nodes of which none reaches another.
func (c *memCluster) island(names ...string) (nodes []*testNode) {
	for _, n := range names {
		tn, _ := c.node(n + ":1")
		nodes = append(nodes, tn)
	}
	for _, a := range names {
		for _, b := range names {
			if a != b {
				c.net.Cut(a, b)
			}
		}
	}
	return nodes
}

// Of six nodes of which none reaches another the server feeds four, beside the first. All is known after three
// dials, 2 s each, and after 6 s it is tried once more: that takes a dial. To try one feeder after the other took 8 s, and
// then all were fed by the server.
func TestNoneReachesAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newMemSource(true, random(1, 300_000))
		c := newMemCluster(t, src)
		c.cfg.MaxDirect = 4
		nodes := c.island("a", "b", "c", "d", "e", "f")
		start := time.Now()
		r, err := c.send()
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took < 13*time.Second || took > 13500*time.Millisecond {
			t.Errorf("took %v", took)
		}
		failed := 0
		for i, row := range r.Nodes {
			if row.State == Committed {
				nodes[i].check(t, row, src.blobs...)
				continue
			}
			failed++
			if want := "no node reaches it on port 1 ("; !strings.HasPrefix(row.Reason, want) || !strings.HasSuffix(row.Reason, "and the server feeds 4 such nodes itself already") || row.State != Failed {
				t.Errorf("%s: %s: %s", row.Node, row.State, row.Reason)
			}
		}
		if failed != 1 || r.Direct != 4 || r.Status(nil, 0) != ExitPartial {
			t.Errorf("%d failed, the server fed %d itself, status %d", failed, r.Direct, r.Status(nil, 0))
		}
		var pairs []string
		for _, u := range r.Unreached {
			pairs = append(pairs, u.From+" "+u.To+" "+u.Port)
		}
		if want := []string{"a:1 b:1 1", "b:1 c:1 1", "c:1 d:1 1", "d:1 e:1 1", "e:1 f:1 1"}; !slices.Equal(pairs, want) {
			t.Errorf("%q, want %q", pairs, want)
		}
	})
}

// Nodes do not reach each other for so long that all are known not to, and then do. Those beyond what the
// server feeds itself are asked for once more, and fed by another node: they failed, though nothing was wrong any
// more. What was closed for longer than that ends as before.
func TestWaysOpenLate(t *testing.T) {
	for _, tt := range []struct {
		direct int
		closed time.Duration
		failed int
	}{
		{1, 10 * time.Second, 0},
		{-1, 10 * time.Second, 0},
		{1, 20 * time.Second, 4},
	} {
		t.Run(fmt.Sprintf("%d fed directly, closed for %v", tt.direct, tt.closed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src := newMemSource(true, random(1, 300_000))
				c := newMemCluster(t, src)
				c.cfg.MaxDirect = tt.direct
				names := []string{"a", "b", "c", "d", "e", "f"}
				nodes := c.island(names...)
				time.AfterFunc(tt.closed, func() {
					for _, a := range names {
						for _, b := range names {
							if a != b {
								c.net.Heal(a, b)
							}
						}
					}
				})
				start := time.Now()
				r, err := c.send()
				if err != nil {
					t.Fatal(err)
				}
				if took := time.Since(start); took > 16*time.Second {
					t.Errorf("took %v", took)
				}
				failed := 0
				for i, row := range r.Nodes {
					if row.State == Committed {
						nodes[i].check(t, row, src.blobs...)
						continue
					}
					failed++
					if row.Code != "unreached" {
						t.Errorf("%s: %s: %s: %s", row.Node, row.State, row.Code, row.Reason)
					}
				}
				if failed != tt.failed || r.Direct != max(tt.direct, 0) {
					t.Errorf("%d failed, want %d; the server fed %d itself", failed, tt.failed, r.Direct)
				}
			})
		})
	}
}

// A check asks neighbours both ways, in the time of one dial, and says of whom it does not know it: a
// node of version 1, which gets no message that it does not know, and one that says nothing.
func TestCheckReach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, newMemSource(true, random(1, 1000)))
		c.cfg.Check = true
		c.island("a", "b")
		c.node("c:1")
		answers := func(version int) func(m wire.Message) []wire.Message {
			return func(m wire.Message) []wire.Message {
				if _, err := wire.From(version, m); err != nil {
					t.Error(err)
				}
				switch m.(type) {
				case *wire.Hello:
					return []wire.Message{&wire.Welcome{Version: version, Instance: wire.ID{byte(version)}, State: wire.StateNew}}
				case *wire.Offer:
					return []wire.Message{&wire.Answer{Held: []int64{0}, Free: -1}}
				case *wire.Ping:
					return []wire.Message{&wire.Pong{}}
				}
				return nil
			}
		}
		c.puppet("old:1", answers(1))
		c.puppet("mute:1", answers(2))
		start := time.Now()
		r, err := c.send()
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took < 3*time.Second || took > 3*time.Second+timings.tickEvery {
			t.Errorf("took %v", took)
		}
		var pairs []string
		for _, u := range r.Unreached {
			pairs = append(pairs, u.From+" "+u.To)
		}
		// A puppet takes no links: c is told so by the one next to it.
		if want := []string{"b:1 a:1", "a:1 b:1", "c:1 old:1"}; !slices.Equal(pairs, want) {
			t.Errorf("%q, want %q", pairs, want)
		}
		if want := []string{"old:1", "mute:1"}; !slices.Equal(r.Unprobed, want) {
			t.Errorf("not asked: %q, want %q", r.Unprobed, want)
		}
		for _, row := range r.Nodes {
			if row.State != Pending {
				t.Error(fmt.Sprint(row))
			}
		}
	})
}
