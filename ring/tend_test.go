package ring

import (
	"context"
	"errors"
	"fmt"
	"net"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// Tend notes the work, and does what tending says.
func (s *memStock) Tend(ctx context.Context, w Work, got func(done, all int64)) (Tended, error) {
	s.mu.Lock()
	s.works = append(s.works, w)
	s.mu.Unlock()
	if s.tending == nil {
		return Tended{}, nil
	}
	return s.tending(ctx, got)
}

// tender is what has the nodes of a cluster tend their caches, from a host.
func (c *memCluster) tender(host string) *caller {
	a := c.asker()
	a.net.dial = c.net.Host(host).Dial
	return a
}

// untended adds nodes to the cluster with each of which something is wrong.
func (c *memCluster) untended() {
	fails, _ := c.node("fails:1")
	fails.stock(&memStock{tending: func(context.Context, func(done, all int64)) (Tended, error) {
		return Tended{}, errors.New("disk \x1b broken")
	}})
	c.node("bare:1")
	answers := func(version int, with wire.Message) func(m wire.Message) []wire.Message {
		return func(m wire.Message) []wire.Message {
			if _, ok := m.(*wire.Hello); ok {
				return []wire.Message{&wire.Welcome{Version: version, Instance: wire.ID{1}, State: wire.StateNew}}
			}
			return []wire.Message{with}
		}
	}
	c.puppet("old:1", answers(7, &wire.Wanted{}))
	c.puppet("confused:1", answers(wire.Version, &wire.Wanted{}))
	c.puppet("empty:1", answers(wire.Version, &wire.Answer{}))
	c.cfg.Nodes = append(c.cfg.Nodes, Peer{Name: "nameless", Err: errors.New("name not resolved")})
}

// Work that gets on is waited for as long as it takes, and work that does not is given up, and ended on the node, beside a transfer
// that goes on.
func TestTend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, newMemSource(true, random(1, 100_000)))
		a, _ := c.node("a:1")
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

		result := Tended{
			Images: []TendedImage{{Name: "x/a:1", Digest: digest.FromString("x"), Why: "bad"}, {Why: "a file that is no blob"}},
			Blobs:  3, Bytes: 4, Waits: 5, Over: true, Why: "pins",
		}
		long := &memStock{tending: func(_ context.Context, got func(done, all int64)) (Tended, error) {
			for i := range int64(5) {
				time.Sleep(timings.tendFor - 1700*time.Millisecond) // never when the node tells how far it is
				got(i+1, 5)
			}
			return result, nil
		}}
		a.stock(long)
		stands, _ := c.node("stands:1")
		var ended time.Time
		stands.stock(&memStock{tending: func(ctx context.Context, got func(done, all int64)) (Tended, error) {
			got(1, 0)
			<-ctx.Done()
			ended = time.Now()
			return Tended{}, ctx.Err()
		}})
		c.untended()

		start, progress := time.Now(), make(chan TendProgress, 100)
		replies, err := c.tender("asker").tendAll(t.Context(), Work{Do: Verifies}, func(p TendProgress) { progress <- p })
		if err != nil {
			t.Fatal(err)
		}
		between(t, "done", time.Since(start), 4*time.Minute, 6*time.Minute)
		for node, want := range map[string]string{
			"a:1":        "||",
			"stands:1":   "failed||did not get on for 1m0s",
			"fails:1":    `failed||disk \x1b broken`,
			"bare:1":     "refused|denied|this node keeps no images",
			"old:1":      "refused|old|speaks protocol 7, and such a question is of protocol 8: upgrade the nodes first",
			"confused:1": "failed||answers something else than it was told",
			"empty:1":    "failed||answers something else than it was told",
			"nameless":   "unreachable|name|name not resolved",
		} {
			for _, r := range replies {
				if got := fmt.Sprint(r.State, "|", r.Cause.Fault, "|", r.Cause.String()); r.Node == node && got != want {
					t.Errorf("%s: %s\nwant %s", node, got, want)
				}
			}
		}
		if got := replies[0].Tended; !reflect.DeepEqual(got, result) {
			t.Errorf("%+v", got)
		}
		between(t, "ended on the node", ended.Sub(start), timings.tendFor, timings.tendFor+3*time.Second)
		if len(progress) != 5 {
			t.Errorf("told %d times", len(progress))
		}
		close(release)
		if r := <-sent; !r.Nodes[0].State.Good() {
			t.Errorf("%+v", r.Nodes[0])
		}
	})
}

// Only a sender has a cache tended. Who is refused reaches nothing, and none of the answer's words has control characters.
func TestTendRoles(t *testing.T) {
	for role, may := range map[Role]bool{RoleSender: true, RoleWarmer: false, RoleViewer: false, "": false} {
		for _, do := range []Doing{Removes, Collects, Verifies, Pins, Unpins} {
			synctest.Test(t, func(t *testing.T) {
				c := newMemCluster(t, nil)
				n, _ := c.node("a:1")
				stock := &memStock{tending: func(context.Context, func(done, all int64)) (Tended, error) {
					return Tended{Images: []TendedImage{{Name: "a\x1b", Owners: []string{"o\n"}, Why: "\a"}}, Why: "\x00"}, nil
				}}
				n.stock(stock)
				n.as("me", role)
				w := Work{Do: do}
				switch do {
				case Removes, Pins, Unpins:
					w.Names = []string{"a"}
				case Collects:
					w.Max, w.Free, w.Grace = 1, 2, time.Hour
				}
				r, err := c.tender("asker").tendAll(t.Context(), w, nil)
				if err != nil || (r[0].State == "") != may || len(stock.works) > 0 != may {
					t.Fatalf("%s of %q: %+v, %v, %v", do, role, r, err, stock.works)
				}
				if !may {
					if r[0].State != Refused || !strings.Contains(r[0].Cause.Text, "does not permit to "+string(do)) {
						t.Errorf("%s of %q: %+v", do, role, r)
					}
					return
				}
				if !reflect.DeepEqual(stock.works[0], w) {
					t.Errorf("%+v, want %+v", stock.works[0], w)
				}
				if got := fmt.Sprint(r[0].Images, r[0].Why); got != `[{a\x1b  false [o\n] \a}]\x00` {
					t.Errorf("%s", got)
				}
			})
		}
	}
}

// One verifies at a time, and beside it one who does something else. Work ends with who asked for it, hung up or silent.
func TestTendTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, nil)
		n, _ := c.node("a:1")
		release := make(chan struct{})
		running, ended := 0, make(chan time.Time, 10)
		stock := &memStock{tending: func(ctx context.Context, _ func(done, all int64)) (Tended, error) {
			running++
			select {
			case <-release:
			case <-ctx.Done():
				ended <- time.Now()
			}
			running--
			return Tended{}, ctx.Err()
		}}
		n.stock(stock)
		tend := func(ctx context.Context, host string, do Doing) chan TendReply {
			w := Work{Do: do}
			if do == Removes {
				w.Names = []string{"a"}
			}
			done := make(chan TendReply, 1)
			go func() {
				r, err := c.tender(host).tendAll(ctx, w, nil)
				if err != nil {
					t.Error(err)
				}
				done <- r[0]
			}()
			synctest.Wait()
			return done
		}
		ctx, cancel := context.WithCancel(t.Context())
		first := tend(ctx, "one", Verifies)
		removes := tend(t.Context(), "two", Removes)
		if r := <-tend(t.Context(), "three", Verifies); r.State != Refused || !strings.Contains(r.Cause.Text, "busy") {
			t.Errorf("a second verify: %+v", r)
		}
		begun := time.Now()
		if r := <-tend(t.Context(), "three", Collects); r.State != Refused || !strings.Contains(r.Cause.Text, "busy") {
			t.Errorf("a second one that removes: %+v", r)
		}
		near(t, "refused", time.Since(begun), timings.yieldFor)
		if running != 2 {
			t.Errorf("%d run", running)
		}
		waits := tend(t.Context(), "three", Collects)
		cancel()
		<-first
		<-ended
		c.net.Freeze("two")
		begun = time.Now()
		between(t, "silent", (<-ended).Sub(begun), timings.silence-time.Second, timings.silence+time.Second)
		synctest.Wait()
		close(release)
		if r := <-waits; r.State != "" {
			t.Errorf("who waited for his turn: %+v", r)
		}
		c.net.Thaw("two")
		<-removes
	})
}

// Work that takes long, or waits for its turn, keeps nobody from saying something long, such as the offer of a push, and is not ended by it.
func TestTendLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, nil)
		n, _ := c.node("a:1")
		release, ended := make(chan struct{}), false
		n.stock(&memStock{tending: func(ctx context.Context, _ func(done, all int64)) (Tended, error) {
			select {
			case <-release:
			case <-ctx.Done():
				ended = true
			}
			return Tended{}, nil
		}})
		w, q := Work{Do: Pins}, Question{}
		for i := range MaxImages {
			name := fmt.Sprintf("x/%0100d", i)
			w.Names, q.Images = append(w.Names, name), append(q.Images, Image{Name: name})
		}
		done := make(chan TendReply, maxLong)
		for range maxLong {
			go func() {
				r, _ := c.tender("asker").tendAll(t.Context(), w, nil)
				done <- r[0]
			}()
		}
		synctest.Wait()
		begun := time.Now()
		if r, err := c.asker().askAll(t.Context(), q); err != nil || r[0].State != "" || time.Since(begun) > time.Second {
			t.Errorf("after %v: %+v, %v", time.Since(begun), r[0].Cause, err)
		}
		if ended {
			t.Error("the work was ended for it")
		}
		close(release)
		for range maxLong {
			if r := <-done; r.State != "" {
				t.Errorf("%+v", r)
			}
		}
	})
}

// No more nodes are dialled beside each other than for questions, also where all of them are silent.
func TestTendMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, nil)
		for i := range maxAsked + 44 {
			c.cfg.Nodes = append(c.cfg.Nodes, Peer{Name: fmt.Sprint("n", i), Addrs: []string{fmt.Sprintf("n%d:1", i)}})
		}
		a := c.asker()
		var dials atomic.Int32
		a.net.dial = func(ctx context.Context, _ string) (net.Conn, error) {
			dials.Add(1)
			<-ctx.Done()
			return nil, ctx.Err()
		}
		done := make(chan []TendReply)
		go func() {
			r, _ := a.tendAll(t.Context(), Work{Do: Verifies}, nil)
			done <- r
		}()
		synctest.Wait()
		if n := dials.Load(); n != maxAsked {
			t.Errorf("%d are dialled at once", n)
		}
		begun := time.Now()
		for _, r := range <-done {
			if r.State != Unreachable || r.Node == "" {
				t.Errorf("%+v", r)
			}
		}
		between(t, "done", time.Since(begun), timings.turn, timings.turn+timings.startLimit)
	})
}
