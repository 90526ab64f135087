package ring

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
)

// Eight addresses without a key that open all the connections they can keep no new sender out, and none that has begun
// to greet where one was before.
func TestStrangersKeepNobodyOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newMemSource(true, random(1, 1000))
		c := newMemCluster(t, src)
		a, _ := c.node("a:1")
		flood := func(hosts, each int) {
			for range each {
				for i := range hosts {
					conn, err := c.net.Host(fmt.Sprint("stranger", i)).Dial(t.Context(), "a:1")
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { conn.Close() })
				}
				synctest.Wait()
			}
		}
		push := func() {
			t.Helper()
			r, err := c.send()
			if err != nil {
				t.Fatal(err)
			}
			if !r.Nodes[0].State.Good() {
				t.Errorf("%+v", r.Nodes[0])
			}
			<-a.outcomes
		}
		flood(8, 40)
		push()

		// From the server's address now: a connection that is slow to greet outlasts a flood from many.
		c.dialed = func(_ string, conn net.Conn) (net.Conn, error) {
			c.dialed = nil
			flood(100, 4)
			return conn, nil
		}
		push()
	})
}

// All addresses of an IPv6 network of 64 bits count as one, and others have their own places.
func TestGateNetworks(t *testing.T) {
	var g gate
	enter := func(addr string) *gateConn {
		c := &gateConn{addr: net.TCPAddrFromAddrPort(netip.MustParseAddrPort(addr))}
		g.enter(c)
		return c
	}
	first := enter("[fd00::1]:1")
	other, old, four := enter("[fd00:0:0:1::1]:1"), enter("10.0.0.1:1"), enter("10.0.0.2:1")
	for i := range gatePerAddr - 1 {
		enter(fmt.Sprintf("[fd00::%x:0:1]:1", i+1))
		enter("[::ffff:10.0.0.2]:1")
	}
	if first.closed || four.closed {
		t.Fatal("closed before its address had all its places")
	}
	enter("[fd00::2]:1")
	enter("10.0.0.2:2")
	if !first.closed || !four.closed || other.closed || old.closed {
		t.Errorf("closed: %v %v, the others %v %v", first.closed, four.closed, other.closed, old.closed)
	}
	for i := range 10 * gateSlots {
		enter(fmt.Sprintf("10.1.%d.%d:1", i>>8, i&255))
	}
	if !old.closed || len(g.visitors) != gateSlots {
		t.Errorf("the oldest is closed: %v, there are %d", old.closed, len(g.visitors))
	}
}

type gateConn struct {
	net.Conn
	addr   net.Addr
	closed bool
}

func (c *gateConn) RemoteAddr() net.Addr { return c.addr }
func (c *gateConn) Close() error         { c.closed = true; return nil }
