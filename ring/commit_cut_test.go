package ring

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// cutter breaks the control connections of one node at a message: before it arrives, or right
// after it did.
type cutter struct {
	kind  byte // type of the message, as on the wire
	after bool
	times int // so many connections

	mu  sync.Mutex
	cut int
}

// hit says whether a message of this kind is where the connection breaks.
func (c *cutter) hit(kind byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if kind != c.kind || c.cut >= c.times {
		return false
	}
	c.cut++
	return true
}

// whole returns the first message of b, with its length; nil: it is not all there.
func whole(b []byte) []byte {
	if len(b) < 5 || len(b) < 4+int(binary.BigEndian.Uint32(b)) {
		return nil
	}
	return b[:4+binary.BigEndian.Uint32(b)]
}

// cutConn is the server's end of such a connection, without TLS.
type cutConn struct {
	net.Conn
	c    *cutter
	in   []byte // read, and not yet taken
	give int    // of it, whole messages
	last bool   // after that it is broken
}

var errCut = errors.New("cut")

func (c *cutConn) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		m := whole(rest)
		hit := m != nil && c.c.hit(m[4])
		if hit && !c.c.after {
			c.Conn.Close()
			return 0, errCut
		}
		if m == nil {
			m = rest
		}
		if _, err := c.Conn.Write(m); err != nil {
			return 0, err
		}
		if hit {
			// What arrived is read before the end is: the peer acts on it.
			c.Conn.Close()
			return 0, errCut
		}
		rest = rest[len(m):]
	}
	return len(p), nil
}

func (c *cutConn) Read(p []byte) (int, error) {
	for c.give == 0 {
		if c.last {
			c.Conn.Close()
			return 0, errCut
		}
		var buf [4096]byte
		n, err := c.Conn.Read(buf[:])
		if c.in = append(c.in, buf[:n]...); err != nil {
			return 0, err
		}
		for m := whole(c.in[c.give:]); m != nil && !c.last; m = whole(c.in[c.give:]) {
			if c.last = c.c.hit(m[4]); c.last && !c.c.after {
				break
			}
			c.give += len(m)
		}
	}
	n := copy(p, c.in[:c.give])
	c.in, c.give = c.in[n:], c.give-n
	return n, nil
}

// kindOf is the type of a message on the wire.
func kindOf(t *testing.T, m wire.Message) byte {
	b, err := wire.Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	return b[4]
}

// The control connection of the middle node breaks around each message of the two steps to
// commit, once or three times, and is there again at once, or late. Whatever is asked again, the
// row says what the node did.
func TestControlCutAtCommit(t *testing.T) {
	sum := "sha256:" + strings.Repeat("0", 64)
	messages := []wire.Message{
		&wire.Start{}, &wire.Need{Needs: [][2]int64{}},
		&wire.Verified{Digests: []string{sum}}, &wire.Commit{}, &wire.Committed{Digest: sum},
	}
	for _, m := range messages {
		kind := kindOf(t, m)
		for _, after := range []bool{false, true} {
			for _, times := range []int{1, 3} {
				for _, how := range []string{"", "late", "slow", "fails"} {
					name := fmt.Sprintf("%T after=%v times=%d %s", m, after, times, how)
					t.Run(strings.TrimPrefix(name, "*wire."), func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) {
							cutAtCommit(t, &cutter{kind: kind, after: after, times: times}, how)
						})
					})
				}
			}
		}
	}
}

// publisher takes its time to publish, or fails to.
type publisher struct {
	*memSink
	publish func() error
}

func (s publisher) Publish(ctx context.Context) error {
	if err := s.publish(); err != nil {
		return err
	}
	return s.memSink.Publish(ctx)
}

func cutAtCommit(t *testing.T, cut *cutter, how string) {
	src := newMemSource(true, random(1, 600_000))
	c := newMemCluster(t, src)
	c.bare = true
	c.cfg.Plain, c.cfg.Retries = true, 5
	var nodes []*testNode
	for _, name := range []string{"a:1", "b:1", "c:1"} {
		n, _ := c.node(name)
		nodes = append(nodes, n)
	}
	b := nodes[1]
	b.node.config().Accept = func(context.Context, Request) (Sink, error) {
		return publisher{b.sink, func() error {
			switch how {
			case "slow":
				time.Sleep(3 * time.Second)
			case "fails":
				return errors.New("disk on fire")
			}
			return nil
		}}, nil
	}
	var dead time.Time
	c.dialed = func(addr string, conn net.Conn) (net.Conn, error) {
		if addr != "b:1" {
			return conn, nil
		}
		cut.mu.Lock()
		defer cut.mu.Unlock()
		if cut.cut > 0 && dead.IsZero() {
			dead = time.Now().Add(700 * time.Millisecond)
		}
		if how == "late" && time.Now().Before(dead) {
			conn.Close()
			return nil, io.ErrUnexpectedEOF
		}
		return &cutConn{Conn: conn, c: cut}, nil
	}
	r, err := c.send()
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(c.begun)
	if cut.cut == 0 && how != "fails" {
		t.Error("nothing was cut")
	}
	for i, n := range nodes {
		row := r.Nodes[i]
		n.check(t, row, src.blobs...)
		good := how != "fails" || i != 1
		if how == "late" && i == 1 && !row.State.Good() && strings.HasPrefix(row.Reason, "lost during the transfer") {
			good = false // before COMMIT nobody waits for it
		}
		if row.State.Good() != good || n.sink.published > 1 {
			t.Errorf("%+v, published %d times", row, n.sink.published)
		}
		if o := <-n.outcomes; (o.State == Committed) != row.State.Good() {
			t.Errorf("row %+v, outcome %+v", row, o)
		}
	}
	// A server that has heard all does not come back: a node waits 15 s for its BYE.
	if took > 4*time.Second {
		t.Errorf("took %v", took)
	}
}
