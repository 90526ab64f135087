package ring

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dolly-img/dolly-img/ring/identity"
	"github.com/dolly-img/dolly-img/ring/internal/wire"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// rawMessage makes a control message of a type and body that this version may not have.
func rawMessage(kind byte, body string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(body)+1))
	return append(append(b, kind), body...)
}

// What a node of another version answers stands in its row: what it speaks, and what this does.
func TestNodeOfAnotherVersion(t *testing.T) {
	const own = "this is protocol 1 to 8 (dolly-img 9.9)"
	welcome := string(mustEncode(&wire.Welcome{Version: 2, Instance: wire.ID{1}, State: wire.StateNew, Software: "dolly-img 2.1"})[5:])
	for name, c := range map[string]struct {
		answers map[string]string // by type of message: body of the answer
		state   State
		reason  string
	}{
		"says why": {map[string]string{"\x01": "\x02" + `{"version":0,"instance":"01000000000000000000000000000000","state":"unknown","digest":"","reason":"speaks protocol 9, this is protocol 1 to 8"}`},
			Refused, "speaks protocol 9, this is protocol 1 to 8"},
		"version 1 does not say": {map[string]string{"\x01": "\x02" + `{"version":0,"instance":"01000000000000000000000000000000","state":"unknown","digest":"","reason":""}`},
			Refused, "speaks no protocol version in common with this, protocol 1 to 8 (dolly-img 9.9)"},
		"picks another": {map[string]string{"\x01": "\x02" + strings.Replace(welcome, `"version":2`, `"version":9`, 1)},
			Refused, "speaks protocol 9 (dolly-img 2.1), " + own},
		"has more fields": {map[string]string{"\x01": "\x02" + strings.Replace(welcome, `{"version":2`, `{"new":true,"version":9`, 1)},
			Refused, "speaks protocol 9 (dolly-img 2.1), " + own},
		"is no greeting": {map[string]string{"\x01": "\x63{}"},
			Refused, "speaks an unknown protocol, " + own},
		"later message": {map[string]string{"\x01": "\x02" + welcome, "\x03": "\x63{}"},
			Failed, "sent a message that cannot be read (unknown control message type 99): it speaks protocol 2 (dolly-img 2.1), " + own},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mc := newMemCluster(t, newMemSource(true, random(1, 1000)))
				mc.cfg.Software = "dolly-img 9.9"
				mc.puppetBytes("a:1", func(m wire.Message) []byte {
					if a := c.answers[string(mustEncode(m)[4:5])]; a != "" {
						return rawMessage(a[0], a[1:])
					}
					return nil
				})
				r, err := mc.send()
				if err != nil {
					t.Fatal(err)
				}
				if row := r.Nodes[0]; row.State != c.state || row.Reason != c.reason {
					t.Errorf("%s: %s\nwant %s: %s", row.State, row.Reason, c.state, c.reason)
				}
			})
		})
	}
}

func mustEncode(m wire.Message) []byte {
	b, err := wire.Encode(m)
	if err != nil {
		panic(err)
	}
	return b
}

// A node says to a server of another version, and to its own log, what both speak; one of version 1
// gets exactly the bytes of version 1.
func TestServerOfAnotherVersion(t *testing.T) {
	const (
		hello = `{"min":1,"max":8,"transfer":"ab000000000000000000000000000000","node":"a:1","resume":false}`
		own   = "protocol 1 to 8 (dolly-img 1.2.0)"
	)
	hello1 := rawMessage(1, strings.Replace(hello, `"max":8`, `"max":1`, 1))
	hello2 := rawMessage(1, strings.Replace(hello, `"max":8`, `"max":2`, 1))
	offer := mustEncode(&wire.Offer{Blobs: []v1.Descriptor{newMemSource(true, random(1, 1000)).descs[0]}, Meta: json.RawMessage("{}")})
	for name, c := range map[string]struct {
		says   []byte
		answer string // the last message of the node begins with it
		logged string
	}{
		"version 1": {hello1, `{"version":1,"instance":"ID","state":"new","digest":"","reason":""}`, ""},
		"version 2": {hello2, `{"version":2,"instance":"ID","state":"new","digest":"","reason":"","software":"dolly-img 1.2.0","platform":"linux/amd64/v3"}`, ""},
		"later": {rawMessage(1, strings.Replace(hello, `"min":1,"max":8`, `"min":9,"max":10`, 1)),
			`{"version":0,"instance":"ID","state":"unknown","digest":"","reason":"speaks ` + own + `, this is protocol 9 to 10"}`, "the server speaks protocol 9 to 10, this is " + own},
		"later, with more fields": {rawMessage(1, strings.Replace(hello, `{"min":1,"max":8`, `{"software":"dolly-img 9","min":9,"max":9`, 1)),
			`{"version":0,"instance":"ID","state":"unknown","digest":"","reason":"speaks ` + own + `, this is protocol 9 (dolly-img 9)"}`, "the server speaks protocol 9 (dolly-img 9), this is " + own},
		"offer": {append(rawMessage(1, hello), rawMessage(3, `{"later":1}`)...),
			`{"held":null,"free":0,"replay":false,"switch":false,"code":"version","reason":"the server sent a message that cannot be read (control message type 3: not in its one encoding): it speaks protocol 8, this is ` + own,
			"it speaks protocol 8, this is " + own},
		"later message": {append(append(rawMessage(1, hello), offer...), rawMessage(99, `{}`)...),
			`{"code":"version","reason":"the server sent a message that cannot be read (unknown control message type 99): it speaks protocol 8, this is ` + own, "it speaks protocol 8, this is " + own},
		"version 1 only asks": {slices.Concat(hello1, offer, rawMessage(18, `{"reason":"only asked","keep":true}`)), `{"held":[0],`, "state=asked"},
		"newest only asks":    {slices.Concat(rawMessage(1, hello), offer, rawMessage(18, `{"reason":"in other words","keep":true,"code":"asked"}`)), `{"held":[0],`, "state=asked"},
		"version 2 only asks": {slices.Concat(hello2, offer, rawMessage(18, `{"reason":"only asked","keep":true}`)), `{"held":[0],`, "state=asked"},
		"newest aborts":       {slices.Concat(rawMessage(1, hello), offer, rawMessage(18, `{"reason":"only asked","keep":true}`)), `{"held":[0],`, "state=failed"},
		"version 2, with a field of version 3": {slices.Concat(hello2, offer, rawMessage(18, `{"reason":"x","keep":true,"code":"asked"}`)),
			`{"code":"version","reason":"the server sent a message that cannot be read (control message type 18 has a code, which is unknown in protocol 2): it speaks protocol 2, this is ` + own, "state=failed"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mc := newMemCluster(t, nil)
				log := new(lockedBuffer)
				mc.log = slog.New(slog.NewTextHandler(log, nil))
				tn, _ := mc.node("a:1")
				raw, err := mc.net.Host("server").Dial(t.Context(), "a:1")
				if err != nil {
					t.Fatal(err)
				}
				conn := tls.Client(raw, mc.load(identity.Sender).ClientConfig(ALPNControl, "a:1"))
				defer conn.Close()
				if _, err := conn.Write(c.says); err != nil {
					t.Fatal(err)
				}
				want := strings.ReplaceAll(c.answer, "ID", tn.node.instance.String())
				if got := lastBody(conn); !strings.HasPrefix(got, want) {
					t.Errorf("answers %s\nwant %s", got, want)
				}
				if !strings.Contains(log.String(), c.logged) {
					t.Errorf("log: %s", log)
				}
			})
		})
	}
}

// lastBody is the body of the last message that comes until the peer closes or says no more.
func lastBody(conn net.Conn) (last string) {
	for {
		conn.SetReadDeadline(time.Now().Add(time.Second / 2)) // what is silent that long waits for us
		var head [5]byte
		if _, err := io.ReadFull(conn, head[:]); err != nil {
			return last
		}
		body := make([]byte, binary.BigEndian.Uint32(head[:])-1)
		if _, err := io.ReadFull(conn, body); err != nil {
			return "cut off: " + last
		}
		last = string(body)
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Greet tells who the nodes are and leaves nothing on them: with one place for a transfer, a push
// comes right behind it.
func TestGreet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mc := newMemCluster(t, newMemSource(true, random(1, 1000)))
		tn, _ := mc.node("a:1")
		mc.puppet("old:1", func(m wire.Message) []wire.Message {
			return []wire.Message{&wire.Welcome{Version: 1, Instance: wire.ID{1}, State: wire.StateNew}}
		})
		mc.puppet("mute:1", func(m wire.Message) []wire.Message { return nil })
		mc.name("gone:1")
		caller := newCaller(mc.cfg)
		caller.net.dial = mc.net.Host("server").Dial
		begun := time.Now()
		all := caller.greetAll(t.Context())
		near(t, "greeted", time.Since(begun), 5*time.Second)
		want := []Greeting{
			{Node: "a:1", Software: "dolly-img 1.2.0", Platform: "linux/amd64/v3"},
			{Node: "old:1"}, {Node: "mute:1"}, {Node: "gone:1"},
		}
		for i, g := range all {
			if failed := g.Err != nil; failed != (i > 1) {
				t.Errorf("%+v", g)
			}
			if g.Err = nil; g != want[i] {
				t.Errorf("got %+v\nwant %+v", g, want[i])
			}
		}
		synctest.Wait()
		tn.node.mu.Lock()
		if n := len(tn.node.sessions) + len(tn.node.outcomes) + len(tn.node.conns); n != 0 {
			t.Errorf("%d things are left on the node", n)
		}
		tn.node.mu.Unlock()
	})
}

// written counts what is written to a connection.
type written struct {
	net.Conn
	n atomic.Int64
}

func (w *written) Write(b []byte) (int, error) {
	w.n.Add(int64(len(b)))
	return w.Conn.Write(b)
}

// Without a TLS configuration for a node, nothing is said to it: a configuration that a program forgot
// had the server greet without TLS, and tell secrets to whoever answered.
func TestControlIsNeverPlain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, newMemSource(true, random(1, 1000)))
		c.puppet("a:1", func(wire.Message) []wire.Message { return nil })
		c.cfg.TLS = func(string) *tls13 { return nil }
		tap := new(written)
		c.dialed = func(_ string, conn net.Conn) (net.Conn, error) { tap.Conn = conn; return tap, nil }
		r, err := c.send()
		if err != nil {
			t.Fatal(err)
		}
		if row := r.Nodes[0]; row.State != Refused || !strings.HasPrefix(row.Reason, "tls: ") || tap.n.Load() != 0 {
			t.Errorf("%s: %s, and %d bytes were written", row.State, row.Reason, tap.n.Load())
		}
	})
}
