package ring

import (
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dolly-img/dolly-img/ring/identity"
	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// rivals makes a cluster in which asSender has another key than the cluster's own sender.
func rivals(t *testing.T, src Source) *memCluster {
	c := newMemCluster(t, src)
	if _, _, err := identity.Renew(c.dir, []string{"sender"}, identity.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	return c
}

// dribble begins an offer of 4 MiB and gives 64 KiB of it each 4.9 s until end.
func (c *memCluster) dribble(end chan struct{}, nth byte) {
	conn := c.asSender("a:1")
	hello, err := wire.Encode(&wire.Hello{Min: ProtocolMin, Max: ProtocolMax, Transfer: wire.ID{9, nth}, Node: "a:1"})
	if err == nil {
		_, err = conn.Write(hello)
	}
	go io.Copy(io.Discard, conn)
	head := make([]byte, 64<<10)
	binary.BigEndian.PutUint32(head, wire.MaxMessage)
	head[4] = 3 // OFFER
	if err == nil {
		_, err = conn.Write(head)
	}
	for err == nil {
		_, err = conn.Write(make([]byte, 1000))
		select {
		case <-time.After(4900 * time.Millisecond):
		case <-end:
			return
		}
		if err == nil {
			_, err = conn.Write(make([]byte, 64<<10-1000))
		}
	}
}

// A sender that dribbles long offers delays no long message of another one: neither its offer nor what it says in its transfer.
func TestDribbledOffers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newMemSource(true, []byte("x"))
		c := rivals(t, src)
		c.node("a:1")
		end := make(chan struct{})
		var dribbles sync.WaitGroup
		attack := func(id byte) {
			for nth := range byte(maxLong + 1) {
				dribbles.Go(func() { c.dribble(end, id+nth) })
			}
			time.Sleep(time.Second)
		}
		raw, err := c.net.Host("server").Dial(t.Context(), "a:1")
		if err != nil {
			t.Fatal(err)
		}
		defer dribbles.Wait()
		defer close(end)
		defer raw.Close()
		conn := tls.Client(raw, c.cfg.TLS("a:1"))
		conn.SetDeadline(time.Now().Add(3 * time.Second)) // the attacks take two
		say(t, conn, &wire.Hello{Min: ProtocolMin, Max: ProtocolMax, Transfer: wire.ID{1}, Node: "a:1"})
		attack(0)
		meta := []byte(`"` + strings.Repeat("x", 64<<10-2) + `"`)
		if a, ok := say(t, conn, &wire.Offer{Blobs: src.descs, Meta: meta}).(*wire.Answer); !ok || a.Code != wire.CodeNone {
			t.Errorf("%+v", a)
		}
		attack(100)
		start, _ := wire.Encode(&wire.Start{})
		conn.Write(start)
		m := say(t, conn, &wire.Dial{Link: 7, Generation: 7, Addrs: []string{"nobody:1"}, Needs: make([][2]int64, 20_000)})
		for link, ok := m.(*wire.Link); !ok || link.Link != 7; link, ok = m.(*wire.Link) {
			m = say(t, conn, &wire.Ping{})
		}
	})
}

// A sender that opens control connections and says nothing does not remove the offer of another one.
func TestCrowdedLobby(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var blobs [][]byte
		for i := range 600 {
			blobs = append(blobs, binary.BigEndian.AppendUint32(nil, uint32(i)))
		}
		c := rivals(t, newMemSource(true, blobs...))
		c.node("a:1")
		c.net.Shape("server", "a", 30_000, 0) // the offer takes seconds
		var flood sync.WaitGroup
		flood.Go(func() {
			time.Sleep(time.Second)
			for range maxLobby + 1 {
				conn := c.asSender("a:1")
				if err := conn.Handshake(); err != nil {
					t.Error(err)
				}
				go io.Copy(io.Discard, conn)
			}
		})
		r, err := c.send()
		if err != nil || !r.Nodes[0].State.Good() || time.Since(c.begun) < 2*time.Second {
			t.Errorf("%+v, %v", r, err)
		}
		flood.Wait()
	})
}

// The connection of a transfer that has ended is answered as long as its server pings, and counts among those without a transfer.
func TestTransferEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newMemSource(true, []byte("x"))
		c := newMemCluster(t, src)
		a, _ := c.node("a:1")
		conn := c.asSender("a:1")
		say(t, conn, &wire.Hello{Min: ProtocolMin, Max: ProtocolMax, Transfer: wire.ID{1}, Node: "a:1"})
		say(t, conn, &wire.Offer{Blobs: src.descs, Meta: []byte("{}")})
		abort, _ := wire.Encode(&wire.Abort{Reason: "enough"})
		conn.Write(abort)
		<-a.outcomes
		ping, _ := wire.Encode(&wire.Ping{})
		for range 10 {
			time.Sleep(timings.pingEvery)
			conn.Write(ping)
			if m, err := readMessage(conn); err != nil {
				t.Fatalf("%T, %v", m, err)
			}
		}
		for range maxLobby {
			other := c.asSender("a:1")
			if err := other.Handshake(); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		conn.SetReadDeadline(time.Now().Add(time.Second)) // silent it may be for longer
		if m, err := readMessage(conn); err == nil || isTimeout(err) {
			t.Errorf("it was not closed for another one: %T, %v", m, err)
		}
	})
}

// The oldest connection of the key that has most of them has to go. Who leaves makes room.
func TestLobby(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLobby()
		come := func(key byte) *control {
			raw, _ := net.Pipe()
			c := &control{raw: raw, owner: owner{key}, gone: make(chan struct{})}
			l.enter(c)
			return c
		}
		hungUp := func(c *control) bool {
			select {
			case <-c.gone:
				return true
			default:
				return false
			}
		}
		first, a, b := come(1), come(2), come(2)
		for key := range byte(maxLobby - 3) {
			come(100 + key)
		}
		c := come(3)
		if hungUp(first) || !hungUp(a) || hungUp(b) || hungUp(c) {
			t.Error("for one more the oldest connection of the key with two was not closed alone")
		}
		l.leave(b)
		l.leave(b)
		come(4)
		come(1) // now all keys have one, and this is the second of its key
		if !hungUp(first) || hungUp(c) {
			t.Error("for a second connection of a key its first was not closed alone")
		}

		// Long messages: who has one place only keeps it.
		var long []*control
		for key := range byte(maxLong) {
			long = append(long, come(50+key))
			if err := l.begin(long[key]); err != nil {
				t.Error(err)
			}
		}
		done := make(chan error)
		late, again := come(60), come(61)
		go func() { done <- l.begin(late) }()
		synctest.Wait()
		go func() { done <- l.begin(again) }()
		synctest.Wait()
		l.leave(again)
		if err := <-done; err != net.ErrClosed {
			t.Errorf("a connection that was closed while it waited: %v", err)
		}
		l.leave(long[0])
		if err := <-done; err != nil {
			t.Error(err)
		}
		l.leave(long[1])
		if err := l.begin(come(60)); err != nil {
			t.Error(err)
		}
		if err := l.begin(come(70)); err != nil || !hungUp(late) || hungUp(long[2]) || hungUp(long[3]) {
			t.Errorf("for one more the oldest long message of the key with two was not given up alone: %v", err)
		}
	})
}

// One question is answered at a time, and each key has its turn. Who is closed meanwhile, or has no place any more, is passed over.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLobby()
		var mu sync.Mutex
		var order []byte
		come := func(key byte) *control {
			raw, _ := net.Pipe()
			c := &control{raw: raw, owner: owner{key}, gone: make(chan struct{})}
			l.enter(c)
			go func() {
				err := l.await(c)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					order = append(order, key)
				case err == net.ErrClosed:
					order = append(order, key+100)
				}
			}()
			synctest.Wait()
			return c
		}
		come(1)
		for range 2 {
			come(1)
		}
		closed := come(2)
		come(3)
		come(2)
		l.leave(closed)
		for range 5 {
			synctest.Wait()
			l.answered(&control{})
		}
		synctest.Wait()
		if want := []byte{1, 102, 3, 2, 1, 1}; !slices.Equal(order, want) {
			t.Errorf("turns: %v, want %v", order, want)
		}
	})
}

// Who has asked much more than a node answers, and has given most of it up, is not kept waiting for longer than the other questions of its
// key take.
func TestPauseIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, c := newLobby(), &control{}
		for range 100_000 {
			l.pause(c)
		}
		if p := l.pause(c); p > maxLobby*askTime {
			t.Errorf("waits for %v", p)
		}
		time.Sleep(2 * (maxLobby + asksAtOnce) * askTime)
		if p := l.pause(c); p > 0 {
			t.Errorf("later waits for %v", p)
		}
	})
}
