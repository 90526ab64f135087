package ring

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dolly-img/dolly-img/ring/identity"
	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// A long offer takes longer to pass on a slow link than a peer may be silent. It arrives, because it moves.
func TestLongOfferOnSlowLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var blobs [][]byte
		for i := range 3000 {
			blobs = append(blobs, binary.BigEndian.AppendUint32(nil, uint32(i)))
		}
		src := newMemSource(true, blobs...)
		c := newMemCluster(t, src)
		c.cfg.Check = true // the offer, and nothing behind it
		c.cfg.Wait = time.Minute
		c.node("a:1")
		const rate = 30_000
		c.net.Shape("server", "a", rate, 0)
		r, err := c.send()
		if err != nil {
			t.Fatal(err)
		}
		if r.Nodes[0].State != Pending {
			t.Errorf("%+v", r.Nodes[0])
		}
		if took := time.Since(c.begun); took < 2*timings.silence {
			t.Errorf("took %v only, so this shows nothing", took)
		}
	})
}

// asSender opens a control connection to a node with the keys that are in the cluster's directory now.
func (c *memCluster) asSender(addr string) *tls.Conn {
	c.t.Helper()
	raw, err := c.net.Host("another").Dial(c.t.Context(), addr)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { raw.Close() })
	return tls.Client(raw, c.load(identity.Sender).ClientConfig(ALPNControl, addr))
}

// say sends a message and returns the next one that is not PONG.
func say(t *testing.T, conn *tls.Conn, m wire.Message) wire.Message {
	t.Helper()
	b, err := wire.Encode(m)
	if err == nil {
		_, err = conn.Write(b)
	}
	for err == nil {
		if m, err = readMessage(conn); err == nil {
			if _, pong := m.(*wire.Pong); !pong {
				return m
			}
		}
	}
	t.Fatal(err)
	return nil
}

// readMessage reads a message of any length.
func readMessage(conn net.Conn) (wire.Message, error) {
	b, err := wire.Read(conn, func() error { return nil })
	if err != nil {
		return nil, err
	}
	return wire.Decode(b)
}

// A sender that was refused and goes on to ping does not keep its connection.
func TestRefusedAndPinging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, newMemSource(true, nil))
		a, _ := c.node("a:1")
		a.node.config().Accept = func(context.Context, Request) (Sink, error) { return nil, errors.New("no") }
		conn := c.asSender("a:1")
		src := newMemSource(true, []byte("x"))
		say(t, conn, &wire.Hello{Min: ProtocolMin, Max: ProtocolMax, Transfer: wire.ID{1}, Node: "a:1"})
		answer := say(t, conn, &wire.Offer{Blobs: src.descs, Meta: []byte("{}")})
		if a, ok := answer.(*wire.Answer); !ok || a.Code != wire.CodePolicy {
			t.Fatalf("%+v", answer)
		}
		go io.Copy(io.Discard, conn)
		ping, err := wire.Encode(&wire.Ping{})
		begun := time.Now()
		for err == nil && time.Since(begun) < time.Minute {
			time.Sleep(time.Second / 10)
			_, err = conn.Write(ping)
		}
		between(t, "closed", time.Since(begun), timings.silence, timings.silence+time.Second/2)
	})
}

// Another sender that knows a transfer's id learns nothing of it and cannot take it over, while it runs and after it.
func TestResumeByAnotherSender(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := paced(8<<20, 10*time.Second)
		c := newMemCluster(t, src)
		a, _ := c.node("a:1")
		var id atomic.Pointer[wire.ID]
		a.node.config().Began = func(r Request) {
			b, err := hex.DecodeString(r.Transfer)
			if err != nil || len(b) != len(wire.ID{}) {
				t.Errorf("transfer %q: %v", r.Transfer, err)
				return
			}
			id.Store((*wire.ID)(b))
		}
		hello := func() *wire.Hello {
			return &wire.Hello{Min: ProtocolMin, Max: ProtocolMax, Transfer: *id.Load(), Node: "a:1", Resume: true}
		}
		if _, _, err := identity.Renew(c.dir, []string{"sender"}, identity.InitOptions{}); err != nil {
			t.Fatal(err)
		}
		another := func(when string) {
			w, ok := say(t, c.asSender("a:1"), hello()).(*wire.Welcome)
			if !ok || w.State != wire.StateUnknown || w.Digest != "" {
				t.Errorf("%s: %+v", when, w)
			}
		}
		time.AfterFunc(3*time.Second, func() { another("while it runs") })
		r, err := c.send()
		if err != nil {
			t.Fatal(err)
		}
		a.check(t, r.Nodes[0], src.blobs...)
		if r.Nodes[0].State != Committed || r.Nodes[0].Reason != "" {
			t.Errorf("%+v", r.Nodes[0])
		}
		<-a.outcomes
		another("after it")
	})
}

// A node that has too many files open has failed; it refused nothing.
func TestOutOfDescriptors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, newMemSource(true, random(1, 1000)))
		a, _ := c.node("a:1")
		a.node.config().Accept = func(context.Context, Request) (Sink, error) {
			return nil, fmt.Errorf("open /x: %w", syscall.EMFILE)
		}
		r, err := c.send()
		if err != nil {
			t.Fatal(err)
		}
		if row := r.Nodes[0]; row.State != Failed || row.Cause.Fault == FaultDenied || row.Code != string(wire.CodeStore) {
			t.Errorf("%+v", row)
		}
	})
}

// Of the connections that share their memory only so many decode a long message at the same time. The others wait, but not those
// with a short message, and not those that are hung up.
func TestDecodingPlaces(t *testing.T) {
	verified := &wire.Verified{Digests: slices.Repeat([]string{"sha256:" + strings.Repeat("0", 64)}, 1000)}
	for name, memory := range map[string]controlMemory{"node": nodeMemory(), "server": serverMemory()} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				memory.decoding = make(chan struct{}, cap(memory.decoding)) // one of the bubble
				come := func(m wire.Message) (*control, chan error) {
					near, far := net.Pipe()
					c, done := newControl(near, memory), make(chan error, 1)
					t.Cleanup(func() { c.finish(); far.Close() })
					b, err := wire.Encode(m)
					if err != nil {
						t.Fatal(err)
					}
					go far.Write(b)
					go func() {
						_, err := c.read(0)
						done <- err
					}()
					synctest.Wait()
					return c, done
				}
				for range cap(memory.decoding) {
					memory.decoding <- struct{}{} // by others
				}
				_, waits := come(verified)
				gone, ended := come(verified)
				_, short := come(&wire.Pong{})
				gone.hangUp()
				synctest.Wait()
				if len(waits) > 0 || len(ended) == 0 || <-ended != net.ErrClosed || len(short) == 0 || <-short != nil {
					t.Error("not only the long message of the connection that is there waits")
				}
				<-memory.decoding
				if err := <-waits; err != nil || len(memory.decoding) != cap(memory.decoding)-1 {
					t.Errorf("%v; %d places are taken", err, len(memory.decoding))
				}
			})
		})
	}
}
