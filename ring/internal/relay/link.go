package relay

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io"
	"net"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// ioChunk is how much is read and written below TLS; it gains only when both are large.
const ioChunk = 256 << 10

// OpenLink proves a link on a new connection to its receiver, and returns its sending side. A nil
// conf sends plain frames. After an error the caller closes raw.
func OpenLink(ctx context.Context, raw net.Conn, conf *tls.Config, hello wire.LinkHello, secret []byte) (LinkWriter, error) {
	w, conn, challenge, err := greetLink(ctx, raw, conf, hello)
	if err != nil {
		return nil, err
	}
	if err := proveLink(conn, hello.Encode(secret, challenge)); err != nil {
		return nil, err
	}
	if tw, ok := w.(*tlsWriter); ok {
		tw.batch.hold = bufio.NewWriterSize(meteredConn{tw.batch}, ioChunk)
	}
	return w, nil
}

// ReachLink begins to open a link, until the receiver's challenge has come.
func ReachLink(ctx context.Context, raw net.Conn, conf *tls.Config) error {
	_, _, _, err := greetLink(ctx, raw, conf, wire.LinkHello{})
	return err
}

// greetLink has the receiver's challenge come on a new connection.
func greetLink(ctx context.Context, raw net.Conn, conf *tls.Config, hello wire.LinkHello) (LinkWriter, net.Conn, []byte, error) {
	head := header{size: headerSize(hello)}
	var w LinkWriter = &plainWriter{conn: raw, head: head}
	conn := raw
	if conf != nil {
		batch := &batchConn{Conn: raw}
		tc := tls.Client(batch, conf)
		if err := tc.HandshakeContext(ctx); err != nil {
			return nil, nil, nil, err
		}
		conn, w = tc, &tlsWriter{conn: tc, batch: batch, head: head}
	}
	if _, err := io.WriteString(conn, hello.Preamble()); err != nil {
		return nil, nil, nil, err
	}
	challenge := make([]byte, wire.ChallengeSize)
	if _, err := io.ReadFull(conn, challenge); err != nil {
		return nil, nil, nil, fmt.Errorf("no challenge for the link: %w", err)
	}
	return w, conn, challenge, nil
}

// proveLink answers the challenge.
func proveLink(conn net.Conn, hello []byte) error {
	if _, err := conn.Write(hello); err != nil {
		return err
	}
	var status [1]byte
	if _, err := io.ReadFull(conn, status[:]); err != nil {
		return fmt.Errorf("no answer to the link's hello: %w", err)
	}
	if status[0] != wire.LinkHelloOK {
		return wire.Errorf(wire.CodeAuth, "the receiver refused the link (%d)", status[0])
	}
	return nil
}

// AcceptLink is the receiver's half of opening a link on conn, whose transport
// is up: it returns preamble and hello as they came, and the challenge which the hello must prove.
func AcceptLink(conn net.Conn) (preamble string, hello, challenge []byte, err error) {
	var pre [len(wire.Preamble)]byte
	if _, err := io.ReadFull(conn, pre[:]); err != nil {
		return "", nil, nil, err
	}
	preamble = string(pre[:])
	if !wire.KnownPreamble(preamble) {
		return "", nil, nil, wire.Errorf(wire.CodeProtocol, "not a link")
	}
	challenge = make([]byte, wire.ChallengeSize)
	rand.Read(challenge)
	if _, err := conn.Write(challenge); err != nil {
		return "", nil, nil, err
	}
	hello = make([]byte, wire.LinkHelloSize)
	_, err = io.ReadFull(conn, hello)
	return preamble, hello, challenge, err
}

// headerSize is how many bytes the headers of a link have.
func headerSize(h wire.LinkHello) int {
	if h.Padded {
		return wire.PaddedHeader
	}
	return wire.HeaderSize
}

// header is a frame's header as a link carries it.
type header struct {
	bytes [wire.PaddedHeader]byte
	size  int
}

func (h *header) with(hdr *[wire.HeaderSize]byte) []byte {
	copy(h.bytes[:], hdr[:])
	return h.bytes[:h.size]
}

// plainWriter sends header and payload with one system call.
type plainWriter struct {
	conn net.Conn
	head header
	vec  [2][]byte
}

func (w *plainWriter) writeFrame(hdr *[wire.HeaderSize]byte, data []byte, meter *activity) error {
	meter.is(waitOut)
	defer meter.is(waitCPU)
	w.vec = [2][]byte{w.head.with(hdr), data}
	bufs := net.Buffers(w.vec[:])
	_, err := bufs.WriteTo(w.conn)
	return err
}

func (w *plainWriter) Close() error { return w.conn.Close() }

func (w *plainWriter) netConn() net.Conn { return w.conn }

// tlsWriter makes each frame two Writes below TLS, header then payload: the
// receiver relies on a frame beginning with its own record (see lowatConn).
type tlsWriter struct {
	conn  *tls.Conn
	batch *batchConn
	head  header
}

func (w *tlsWriter) writeFrame(hdr *[wire.HeaderSize]byte, data []byte, meter *activity) error {
	w.batch.meter = meter
	if _, err := w.conn.Write(w.head.with(hdr)); err != nil {
		return err
	}
	if len(data) > 0 {
		if _, err := w.conn.Write(data); err != nil {
			return err
		}
	}
	return w.batch.hold.Flush()
}

// Close ends the connection at once; the final record, not close_notify, is what
// says that a link is complete.
func (w *tlsWriter) Close() error { return w.batch.Conn.Close() }

func (w *tlsWriter) netConn() net.Conn { return w.batch.Conn }

// batchConn gathers the records of a frame into large writes, once hold is set.
type batchConn struct {
	net.Conn
	hold  *bufio.Writer
	meter *activity // of who writes: it waits while they are written, not while it encrypts
}

// meteredConn is what hold writes to: the connection below.
type meteredConn struct{ *batchConn }

func (c meteredConn) Write(b []byte) (int, error) {
	c.meter.is(waitOut)
	defer c.meter.is(waitCPU)
	return c.Conn.Write(b)
}

func (c *batchConn) Write(b []byte) (int, error) {
	if c.hold != nil {
		return c.hold.Write(b)
	}
	return c.Conn.Write(b)
}

// LinkReader is the receiving side of a data connection.
type LinkReader struct {
	net.Conn
	low *LowConn

	zeros bool   // ZERO frames and flags may come
	next  header // the next frame's,
	early int    // of which so many bytes came with the payload before it
}

// NewLinkReader makes the receiving side of an accepted link: conn is low, or TLS above it, and raw is the
// connection from which low goes on to read.
func NewLinkReader(conn net.Conn, low *LowConn, raw net.Conn, hello wire.LinkHello) *LinkReader {
	low.widen(raw)
	return &LinkReader{Conn: conn, low: low, zeros: hello.Zeros, next: header{size: headerSize(hello)}}
}

// header reads the next frame header. sure is how much payload will come behind
// it, whatever the frames, so that both can be waited for at once; 0 when nothing is. Marks are
// markEvery bytes apart.
func (l *LinkReader) header(b *[wire.HeaderSize]byte, sure int, markEvery int64) (wire.Header, error) {
	head, have := l.next.bytes[:l.next.size], l.early
	l.early = 0
	if have < len(head) {
		l.low.expectFrame(len(head), sure, have)
		if _, err := io.ReadFull(l.Conn, head[have:]); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF // the final record is missing
			}
			return wire.Header{}, err
		}
	}
	copy(b[:], head)
	if err := wire.CheckPadding(head[len(b):]); err != nil {
		return wire.Header{}, err
	}
	h, err := wire.ParseHeader(b, markEvery)
	if err == nil && !l.zeros && (h.Type == wire.Zero || h.More) {
		err = &wire.FrameError{Reason: "zeros or flags on a link that has none"}
	}
	return h, err
}

// errDamaged says that the checksum of a frame is wrong.
var errDamaged error = wire.Errorf(wire.CodeCRC, "frame was damaged on the link")

// payload reads the frame's payload and checks its CRC.
func (l *LinkReader) payload(b *[wire.HeaderSize]byte, h wire.Header, buf []byte) error {
	l.low.expect(len(buf))
	if err := l.fill(buf); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	if wire.Sum(b, buf) != h.CRC {
		return errDamaged
	}
	return nil
}

// fill reads all of buf, and on a plain link with the same system call what has come of the next header.
func (l *LinkReader) fill(buf []byte) error {
	if l.Conn != l.low {
		_, err := io.ReadFull(l.Conn, buf)
		return err
	}
	for len(buf) > 0 {
		n, err := l.low.readAlso(buf, l.next.bytes[:l.next.size])
		if n > len(buf) {
			l.early = n - len(buf)
			return nil
		}
		if buf = buf[n:]; err != nil && len(buf) > 0 {
			return err
		}
	}
	return nil
}
