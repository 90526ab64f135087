package ring

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"github.com/opencontainers/go-digest"
)

// elder is a control connection to a node that speaks no later protocol than most: HELLO says so. Before version 4 its links
// have short headers.
type elder struct {
	net.Conn
	most int
	said bool
}

func (e *elder) Write(b []byte) (int, error) {
	newest := fmt.Appendf(nil, `"max":%d`, wire.Version)
	if e.said || !bytes.Contains(b, newest) {
		return e.Conn.Write(b)
	}
	e.said = true
	return e.Conn.Write(bytes.Replace(b, newest, fmt.Appendf(nil, `"max":%d`, e.most), 1))
}

// liar is a link of a rotten or hostile relay: it changes the payload of a frame
// and makes its CRC anew, sends a run of zeros in its place, leaves a frame out, says
// one twice or after the next, or that it was the last.
type liar struct {
	net.Conn
	sim  *sim
	node *simNode
	hdr  []byte // of the frame whose payload comes next
	late []byte // a frame that is said after the next
}

func (l *liar) Write(b []byte) (int, error) {
	if l.hdr == nil {
		if len(b) != wire.HeaderSize && len(b) != wire.PaddedHeader || b[0] != wire.Data {
			return l.Conn.Write(b)
		}
		l.hdr = append([]byte(nil), b...)
		return len(b), nil
	}
	h := [wire.HeaderSize]byte(l.hdr)
	pad := l.hdr[len(h):]
	l.hdr = nil
	frame := slices.Concat(h[:], pad, b)
	switch l.node.lie(l.sim, int64(len(b))) {
	case "flip":
		data := frame[len(h)+len(pad):]
		data[0] ^= 1
		wire.PutData(&h, binary.BigEndian.Uint32(h[4:]), int64(binary.BigEndian.Uint64(h[8:])), data)
		copy(frame, h[:])
	case "zero":
		wire.PutZero(&h, binary.BigEndian.Uint32(h[4:]), int64(binary.BigEndian.Uint64(h[8:])), len(b))
		frame = slices.Concat(h[:], pad)
	case "skip":
		frame = nil
	case "fin":
		wire.PutFin(&h)
		frame = slices.Concat(h[:], pad, frame)
	case "repeat":
		frame = append(frame, frame...)
	case "reorder":
		if l.late == nil {
			l.late = frame
			return len(b), nil
		}
	}
	frame, l.late = append(frame, l.late...), nil
	if _, err := l.Conn.Write(frame); err != nil {
		return 0, err
	}
	return len(b), nil
}

// willLie reports whether it has not told its last lie.
func (n *simNode) willLie(s *sim) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return n.lies >= 0
}

// lie says what is done to the next bytes.
func (n *simNode) lie(s *sim, size int64) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n.lies < 0 {
		return ""
	}
	if n.lies -= size; n.lies >= 0 {
		return ""
	}
	if n.every > 0 {
		n.lies = n.every
	}
	return n.how
}

// rogueListener makes a node that says, between what it has to say on control,
// things about links that are not its own and needs that nobody can have.
type rogueListener struct {
	net.Listener
	mu   sync.Mutex
	rand *rand.Rand
	left int // what it will say yet
}

func (l *rogueListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &rogueConn{Conn: c, rogue: l}, nil
}

type rogueConn struct {
	net.Conn
	rogue  *rogueListener
	read   bool
	ctrl   bool
	writes int
}

func (c *rogueConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 && !c.read {
		c.read, c.ctrl = true, b[0] == 0
	}
	return n, err
}

func (c *rogueConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.writes++
	// What is written at once are whole messages; the first is the WELCOME.
	if err == nil && c.ctrl && c.writes > 1 {
		if m := c.rogue.say(); m != nil {
			junk, _ := wire.Encode(m)
			c.Conn.Write(junk)
		}
	}
	return n, err
}

func (l *rogueListener) say() wire.Message {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.rand
	if l.left == 0 || r.IntN(3) == 0 {
		return nil
	}
	l.left--
	link, gen := uint32(1+r.IntN(20)), uint32(1+r.IntN(3))
	switch r.IntN(8) {
	case 0, 1, 2:
		state := []string{wire.LinkUp, wire.LinkDone, wire.LinkDown}[r.IntN(3)]
		code := []wire.Code{wire.CodeNone, wire.CodeGone, wire.CodeNetwork, wire.CodeMismatch}[r.IntN(4)]
		return &wire.Link{Link: link, Generation: gen, State: state, Code: code, Reason: "junk"}
	case 3, 4:
		needs := [][2]int64{{r.Int64N(3) - 1, r.Int64N(1 << 20)}, {r.Int64N(4), r.Int64() >> r.IntN(63)}}
		return &wire.Need{Link: link, Generation: gen, Needs: needs[:r.IntN(3)]}
	case 5:
		return &wire.Report{Received: r.Int64(), Marked: -1, Durable: r.Int64(), Wait: "weather"}
	case 6:
		return &wire.Answer{Held: []int64{r.Int64()}, Free: r.Int64()}
	}
	return &wire.Committed{Digest: digest.FromString("junk").String()}
}
