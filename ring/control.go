package ring

import (
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// controlMemory bounds what the control connections of a process hold.
type controlMemory struct {
	// queue is how many bytes may wait on one connection for a peer that does not read.
	queue int
	// decoding has a place for each long message that is decoded at the same time, on all of them: that takes several times its length.
	// Nobody who has one waits for anything but the processor.
	decoding chan struct{}
}

// To a node that joins late the server says at once at most the final marks of 50,000 blobs, which take 5 MiB, with those before
// them (PROTOCOL.md section 7, "Pages"), and what it needs and feeds, which takes 4 MiB each. It decodes as fast as it can.
func serverMemory() controlMemory {
	return controlMemory{16 << 20, make(chan struct{}, runtime.GOMAXPROCS(0))}
}

// The most that a node says is one of the longest messages. It does not know how many senders there are.
func nodeMemory() controlMemory { return controlMemory{6 << 20, make(chan struct{}, 1)} }

// controlPart is how many bytes have timings.silence to pass: the longest messages take longer on a slow link.
const controlPart = 64 << 10

// shortMessage is the length in bytes up to which messages that wait are put together, to be written at once.
const shortMessage = 4 << 10

// control is one control connection. Any goroutine may send; one reads.
type control struct {
	conn   net.Conn
	raw    io.Closer // closes it without a word
	memory controlMemory

	// version is what WELCOME agreed on, software what the node said there that it is. Both are set
	// before anything else is read.
	version  int
	software string
	// owner tells whose key the server has, on a node.
	owner owner
	// size is how many bytes the message had that was read last.
	size int
	// lobby is where the connection is, on a node that has no transfer for it. Who reads sets it.
	lobby *lobby
	// proof is of what a server has sent.
	proof readProof

	hungUp sync.Once
	gone   chan struct{} // it was hung up

	mu       sync.Mutex
	more     sync.Cond
	queue    [][]byte
	open     bool // the last piece of queue belongs to this connection, which may add to it
	waiting  int  // bytes that are in queue or being written
	closed   bool
	ended    bool          // nothing is written any more
	released bool          // its session is no more, and who reads does not know it yet
	done     chan struct{} // the writer ended
}

func newControl(conn net.Conn, memory controlMemory) *control {
	c := &control{conn: conn, raw: conn, memory: memory, gone: make(chan struct{}), done: make(chan struct{})}
	c.more.L = &c.mu
	go c.write()
	return c
}

var errSlowPeer = errors.New("peer does not read its control connection")

// send queues a message. That it could not be sent shows when the connection is read.
func (c *control) send(m wire.Message) error {
	b, err := wire.Encode(wire.For(c.version, m))
	if err != nil {
		return err
	}
	return c.sendBytes(b)
}

// sendBytes queues an encoded message, which many connections may share: nobody changes it any more. Long ones are not
// copied, because a server may have the same to say to all its nodes.
func (c *control) sendBytes(b []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting+len(b) > c.memory.queue {
		c.conn.Close()
		return errSlowPeer
	}
	c.waiting += len(b)
	switch last := len(c.queue) - 1; {
	case len(b) > shortMessage:
		c.queue, c.open = append(c.queue, b), false
	case c.open:
		c.queue[last] = append(c.queue[last], b...)
	default:
		c.queue, c.open = append(c.queue, slices.Clone(b)), true
	}
	c.more.Broadcast()
	return nil
}

// write sends the queue, each time as much as there is.
func (c *control) write() {
	defer func() {
		c.mu.Lock()
		c.ended = true
		c.more.Broadcast()
		c.mu.Unlock()
		close(c.done)
	}()
	written := 0
	for {
		c.mu.Lock()
		if c.waiting -= written; written > 0 {
			c.more.Broadcast() // to flush
		}
		for len(c.queue) == 0 && !c.closed {
			c.more.Wait()
		}
		if len(c.queue) == 0 {
			c.mu.Unlock()
			c.conn.Close()
			return
		}
		queue := c.queue
		c.queue, c.open, written = nil, false, c.waiting
		c.mu.Unlock()
		for _, b := range queue {
			for part := range slices.Chunk(b, controlPart) {
				c.conn.SetWriteDeadline(time.Now().Add(timings.silence))
				if _, err := c.conn.Write(part); err != nil {
					c.conn.Close()
					return
				}
			}
		}
	}
}

// read returns the next message. It fails when none comes within limit, or the next controlPart bytes of a long one do not;
// 0 is for ever.
func (c *control) read(limit time.Duration) (wire.Message, error) {
	from := &timely{control: c, limit: limit}
	b, err := wire.Read(from, func() error {
		if c.lobby == nil {
			return nil // the messages of transfers are bounded by their number, and none waits for another one's
		}
		err := c.lobby.begin(c)
		from.left = 0 // the time of what comes next begins now
		return err
	})
	c.size = from.got
	if err != nil {
		return nil, err
	}
	return c.decode(b)
}

// decode parses what was read. A long message waits for others, unless its connection is hung up meanwhile.
func (c *control) decode(b []byte) (wire.Message, error) {
	if len(b) > wire.MaxShort {
		select {
		case c.memory.decoding <- struct{}{}:
			defer func() { <-c.memory.decoding }()
		case <-c.gone:
			return nil, net.ErrClosed
		}
	}
	m, err := wire.Decode(b)
	if err != nil {
		return nil, err
	}
	return wire.From(max(c.version, wire.MinVersion), m)
}

// rest waits some time. False says that the connection ended meanwhile.
func (c *control) rest(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	select {
	case <-time.After(d):
		return true
	case <-c.gone:
	case <-c.done:
	}
	return false
}

// hangUp closes the connection, and ends what waits for a place on it.
func (c *control) hangUp() {
	c.hungUp.Do(func() { close(c.gone) })
	c.raw.Close()
}

// timely reads from a connection on which controlPart bytes have to come within limit.
type timely struct {
	*control
	limit time.Duration
	left  int // bytes that the deadline is for
	got   int // bytes that were read
}

func (t *timely) Read(p []byte) (int, error) {
	if t.left == 0 {
		t.left = controlPart
		if t.limit > 0 {
			t.conn.SetReadDeadline(time.Now().Add(t.limit))
		}
		if t.isReleased() {
			return 0, os.ErrDeadlineExceeded
		}
	}
	n, err := t.conn.Read(p[:min(len(p), t.left)])
	t.left, t.got = t.left-n, t.got+n
	return n, err
}

// release ends reading, as a timeout does, when the session that the connection served is no more.
func (c *control) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.released = true
	c.conn.SetReadDeadline(time.Now())
}

func (c *control) isReleased() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.released
}

// linger goes on after release, until the peer hangs up or is silent. The session is not held by it any more.
func (c *control) linger() {
	c.mu.Lock()
	c.released = false
	c.mu.Unlock()
	for {
		m, err := c.read(timings.silence)
		if err != nil {
			return
		}
		if _, ok := m.(*wire.Ping); ok {
			c.send(&wire.Pong{})
		}
	}
}

// drain waits some time for the peer to hang up, whatever it still says. To close the connection while its pings
// are unread would reset it, and the peer might never read what was said last.
func (c *control) drain() {
	var buf [512]byte
	c.conn.SetReadDeadline(time.Now().Add(timings.silence))
	for {
		if _, err := c.conn.Read(buf[:]); err != nil {
			return
		}
	}
}

// ping says every second that this end is there, whatever else the process waits for.
func (c *control) ping() {
	c.repeat(&wire.Ping{}, nil, func() { c.proof.pinged.Add(1) })
}

// stay says the same for a node that does not read yet, until done is called.
func (c *control) stay() (done func()) {
	end := make(chan struct{})
	go c.repeat(&wire.Pong{}, end, func() {})
	return sync.OnceFunc(func() { close(end) })
}

// repeat sends m every second, and calls before each time before that.
func (c *control) repeat(m wire.Message, end chan struct{}, before func()) {
	b, _ := wire.Encode(m)
	tick := time.NewTicker(timings.pingEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			before()
			c.sendBytes(b)
		case <-c.done:
			return
		case <-end:
			return
		}
	}
}

// flush waits until everything that was sent is written. False says that the connection ended before.
func (c *control) flush() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.waiting > 0 && !c.ended {
		c.more.Wait()
	}
	return !c.ended
}

// finish sends what is queued, then closes.
func (c *control) finish() {
	c.mu.Lock()
	c.closed = true
	c.more.Broadcast()
	c.mu.Unlock()
}

// owner is the hash of the public key with which a server has authenticated; zero where there is no TLS.
type owner [sha256.Size]byte

func ownerOf(conn net.Conn) (o owner) {
	if tc, secure := conn.(*tls.Conn); secure {
		if certs := tc.ConnectionState().PeerCertificates; len(certs) > 0 {
			o = sha256.Sum256(certs[0].RawSubjectPublicKeyInfo)
		}
	}
	return o
}

// isTimeout reports whether a peer was silent rather than gone.
func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}
