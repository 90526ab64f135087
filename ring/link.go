package ring

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// ioChunk is how much is read and written below TLS; it gains only when both are large.
const ioChunk = 256 << 10

// transport opens connections; tests put an in-memory network here.
type transport struct {
	dial func(ctx context.Context, addr string) (net.Conn, error)
}

var tcp = transport{dial: func(ctx context.Context, addr string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", addr)
}}

// dialAny tries the addresses in order and returns the first connection, or the *dialError of the last.
func (t transport) dialAny(ctx context.Context, addrs []string) (net.Conn, error) {
	err := errors.New("no address")
	for i, a := range addrs {
		// A dead address leaves time for those behind it.
		limit := timings.connect
		if until, ok := ctx.Deadline(); ok {
			limit = min(limit, time.Until(until)/time.Duration(len(addrs)-i))
		}
		one, cancel := context.WithTimeout(ctx, limit)
		begun := time.Now()
		c, e := t.dial(one, a)
		cancel()
		if e == nil {
			return c, nil
		}
		err = &dialError{a, time.Since(begun), e}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, err
}

// openLink dials a receiver, proves the link and returns its sending side. A nil
// conf sends plain frames.
func (t transport) openLink(ctx context.Context, addrs []string, conf *tls.Config, hello wire.LinkHello, secret []byte) (linkWriter, error) {
	var w linkWriter
	err := t.approach(ctx, addrs, conf, func(to linkWriter, conn net.Conn, challenge []byte) error {
		w = to
		return proveLink(conn, hello.Encode(secret, challenge))
	})
	if err != nil {
		return nil, err
	}
	if tw, ok := w.(*tlsWriter); ok {
		tw.batch.hold = bufio.NewWriterSize(meteredConn{tw.batch}, ioChunk)
	}
	return w, nil
}

// reach opens a link to a receiver until its challenge has come, and closes it.
func (t transport) reach(ctx context.Context, addrs []string, conf *tls.Config) error {
	return t.approach(ctx, addrs, conf, func(w linkWriter, _ net.Conn, _ []byte) error { return w.Close() })
}

// approach opens a link up to the receiver's challenge, and goes on with it as then says. All this has
// timings.link. After an error the connection is closed.
func (t transport) approach(ctx context.Context, addrs []string, conf *tls.Config, then func(linkWriter, net.Conn, []byte) error) error {
	ctx, cancel := context.WithTimeout(ctx, timings.link)
	defer cancel()
	raw, err := t.dialAny(ctx, addrs)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer stop()
	if d, ok := ctx.Deadline(); ok {
		raw.SetDeadline(d)
	}
	w, conn, challenge, err := greetLink(ctx, raw, conf)
	if err == nil {
		err = then(w, conn, challenge)
	}
	if err != nil {
		raw.Close()
		return err
	}
	raw.SetDeadline(time.Time{})
	return nil
}

// greetLink has the receiver's challenge come on a new connection.
func greetLink(ctx context.Context, raw net.Conn, conf *tls.Config) (linkWriter, net.Conn, []byte, error) {
	var w linkWriter = &plainWriter{conn: raw}
	conn := raw
	if conf != nil {
		batch := &batchConn{Conn: raw}
		tc := tls.Client(batch, conf)
		if err := tc.HandshakeContext(ctx); err != nil {
			return nil, nil, nil, err
		}
		conn, w = tc, &tlsWriter{conn: tc, batch: batch}
	}
	if _, err := io.WriteString(conn, wire.Preamble); err != nil {
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

// challengeLink is the receiver's half of opening a link on conn, whose transport
// is up: it returns the hello as it came, and the challenge it must prove.
func challengeLink(conn net.Conn) (hello, challenge []byte, err error) {
	var pre [len(wire.Preamble)]byte
	if _, err := io.ReadFull(conn, pre[:]); err != nil {
		return nil, nil, err
	}
	if string(pre[:]) != wire.Preamble {
		return nil, nil, wire.Errorf(wire.CodeProtocol, "not a link")
	}
	challenge = make([]byte, wire.ChallengeSize)
	rand.Read(challenge)
	if _, err := conn.Write(challenge); err != nil {
		return nil, nil, err
	}
	hello = make([]byte, wire.LinkHelloSize)
	_, err = io.ReadFull(conn, hello)
	return hello, challenge, err
}

// plainWriter sends header and payload with one system call.
type plainWriter struct {
	conn net.Conn
	vec  [2][]byte
}

func (w *plainWriter) writeFrame(hdr *[wire.HeaderSize]byte, data []byte, meter *activity) error {
	meter.is(waitOut)
	defer meter.is(waitCPU)
	w.vec = [2][]byte{hdr[:], data}
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
}

func (w *tlsWriter) writeFrame(hdr *[wire.HeaderSize]byte, data []byte, meter *activity) error {
	w.batch.meter = meter
	if _, err := w.conn.Write(hdr[:]); err != nil {
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

// linkReader is the receiving side of a data connection.
type linkReader struct {
	net.Conn
	low *lowConn
}

// header reads the next frame header. sure is how much payload will come behind
// it, whatever the frames, so that both can be waited for at once; 0 when nothing is.
func (l *linkReader) header(b *[wire.HeaderSize]byte, sure int) (wire.Header, error) {
	l.low.expectFrame(sure)
	if _, err := io.ReadFull(l.Conn, b[:]); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF // the final record is missing
		}
		return wire.Header{}, err
	}
	return wire.ParseHeader(b)
}

// payload reads the frame's payload and checks its CRC.
func (l *linkReader) payload(b *[wire.HeaderSize]byte, h wire.Header, buf []byte) error {
	l.low.expect(len(buf))
	if _, err := io.ReadFull(l.Conn, buf); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	if wire.Sum(b, buf) != h.CRC {
		return wire.Errorf(wire.CodeCRC, "blob %d at byte %d: frame was damaged on the link", h.Blob, h.Offset)
	}
	return nil
}
