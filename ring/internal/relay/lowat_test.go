package relay

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
	"golang.org/x/sys/unix"
)

// pair connects two ends over loopback TCP and opens a link between them, plain
// or under TLS, the way transfers do.
func pair(t *testing.T, secure, padded bool) (LinkWriter, *LinkReader) {
	t.Helper()
	return pairOf(t, secure, wire.LinkHello{Padded: padded})
}

// pairOf is pair for a link that begins with hello.
func pairOf(t *testing.T, secure bool, hello wire.LinkHello) (LinkWriter, *LinkReader) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	server, client := keys(t)
	got := make(chan *LinkReader, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		var first [1]byte
		io.ReadFull(conn, first[:])
		low := NewLowConn(conn, secure, first[:])
		top := net.Conn(low)
		if secure {
			top = tls.Server(low, server)
		}
		if _, _, _, err := AcceptLink(top); err != nil {
			t.Error(err)
		}
		top.Write([]byte{wire.LinkHelloOK})
		got <- NewLinkReader(top, low, conn, hello)
	}()
	var conf *tls.Config
	if secure {
		conf = client
	}
	raw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	w, err := OpenLink(t.Context(), raw, conf, hello, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := <-got
	t.Cleanup(func() { w.Close(); r.Close() })
	return w, r
}

// slowly passes everything on in small pieces, as a slow link does: then a
// low-water mark that is too high by one byte makes the reader sleep for ever.
type slowly struct {
	net.Conn
	piece int
}

func (s slowly) Write(b []byte) (int, error) {
	for off := 0; off < len(b); {
		n, err := s.Conn.Write(b[off:min(off+s.piece, len(b))])
		off += n
		if err != nil {
			return off, err
		}
	}
	return len(b), nil
}

func TestLowWaterMark(t *testing.T) {
	sizes := []int{1, 5, 100, 16<<10 - 1, 16 << 10, 16<<10 + 1, 100_000, 256 << 10, 1<<20 - 1, 1 << 20, 3, 700_001}
	for _, kind := range []struct{ secure, padded bool }{{}, {secure: true}, {padded: true}, {true, true}} {
		secure := kind.secure
		w, r := pair(t, secure, kind.padded)
		switch w := w.(type) {
		case *plainWriter:
			w.conn = slowly{w.conn, 7001}
		case *tlsWriter:
			w.batch.hold.Reset(slowly{w.batch.Conn, 7001})
		}
		done := make(chan error, 1)
		// Each frame is sent only after the one before was received whole: nothing
		// that follows can push a sleeping reader.
		turn := make(chan bool)
		go func() {
			for i, n := range sizes {
				<-turn
				var hdr [wire.HeaderSize]byte
				data := random(uint64(i), n)
				wire.PutData(&hdr, 0, 0, data)
				if err := w.writeFrame(&hdr, data, nil); err != nil {
					done <- err
					return
				}
			}
			<-turn
			var fin [wire.HeaderSize]byte
			wire.PutFin(&fin)
			done <- w.writeFrame(&fin, nil, nil)
		}()
		r.SetReadDeadline(time.Now().Add(20 * time.Second))
		for i, n := range sizes {
			turn <- true
			var hdr [wire.HeaderSize]byte
			h, err := r.header(&hdr, []int{0, n, n / 2}[i%3], wire.MarkEvery) // all of it is sure to come
			if err != nil {
				t.Fatalf("tls %v, frame %d of %d bytes: header: %v", secure, i, n, err)
			}
			if err := r.payload(&hdr, h, make([]byte, h.Length)); err != nil || h.Length != n {
				t.Fatalf("tls %v, frame %d of %d bytes: %v", secure, i, n, err)
			}
		}
		turn <- true
		var hdr [wire.HeaderSize]byte
		if h, err := r.header(&hdr, 0, wire.MarkEvery); err != nil || h.Type != wire.Fin {
			t.Errorf("tls %v: %+v, %v", secure, h, err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// firstFrame makes frames of random payloads, which it returns, sends the first one and cut bytes of the next, waits until
// they are there, and returns the rest.
func firstFrame(conn net.Conn, r *LinkReader, cut int, sizes ...int) (sent [][]byte, rest []byte) {
	var all []byte
	for i, n := range sizes {
		var hdr [wire.HeaderSize]byte
		data := random(uint64(i), n)
		wire.PutData(&hdr, 0, 0, data)
		all = append(append(append(all, hdr[:]...), make([]byte, r.next.size-len(hdr))...), data...)
		sent = append(sent, data)
	}
	first := r.next.size + len(sent[0]) + cut
	conn.Write(all[:first])
	for come := 0; come < first; runtime.Gosched() { // ends with the test's time limit
		r.low.sys.Control(func(fd uintptr) { come, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	}
	return sent, all[first:]
}

// Frames that are there already are read with one call each on a plain link: a header comes with the payload before
// it, or a part of it does. Whatever pieces arrive, what is read is what was sent.
func TestHeaderComesWithPayload(t *testing.T) {
	for _, cut := range []int{0, 1, 7, wire.HeaderSize - 1, wire.PaddedHeader - 1} { // so much of the second header is there
		padded := cut >= wire.HeaderSize
		w, r := pair(t, false, padded)
		conn := w.(*plainWriter).conn
		sent, rest := firstFrame(conn, r, cut, 5000, 1, 70_000)
		for i, data := range sent {
			var hdr [wire.HeaderSize]byte
			h, err := r.header(&hdr, 0, wire.MarkEvery)
			if err != nil {
				t.Fatal(err)
			}
			got := make([]byte, h.Length)
			if err := r.payload(&hdr, h, got); err != nil || !bytes.Equal(got, data) {
				t.Errorf("cut at %d, frame %d: %v, or other bytes", cut, i, err)
			}
			if i == 0 {
				if r.early != cut {
					t.Errorf("%d bytes of the next header came with the payload, want %d", r.early, cut)
				}
				conn.Write(rest)
			}
		}
	}
}

// A part of a header came with the payload before it, and a reader that is sure of the rest sleeps for exactly that.
func TestEarlyHeaderIsNotDueAgain(t *testing.T) {
	for _, cut := range []int{1, 7, wire.HeaderSize - 1, wire.HeaderSize, wire.PaddedHeader - 1} {
		padded := cut >= wire.HeaderSize
		w, r := pair(t, false, padded)
		conn := w.(*plainWriter).conn
		sent, rest := firstFrame(conn, r, cut, 5000, 70_000)
		r.SetReadDeadline(time.Now().Add(5 * time.Second))
		sure := 0
		for i, data := range sent {
			if i == 1 {
				go func() {
					for mark := 1; mark < 60_000; runtime.Gosched() { // the reader sleeps
						r.low.sys.Control(func(fd uintptr) {
							mark, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVLOWAT)
						})
					}
					conn.Write(rest)
				}()
			}
			var hdr [wire.HeaderSize]byte
			h, err := r.header(&hdr, sure, wire.MarkEvery)
			if err != nil {
				t.Fatalf("cut at %d: %v", cut, err)
			}
			got := make([]byte, h.Length)
			if err := r.payload(&hdr, h, got); err != nil || !bytes.Equal(got, data) {
				t.Fatalf("cut at %d, frame %d: %v", cut, i, err)
			}
			if i == 0 && r.early != cut {
				t.Fatalf("early %d", r.early)
			}
			sure = 70_000
		}
	}
}

// held lets only the beginning through until it is told that the reader waits.
type held struct {
	net.Conn
	waits chan bool
}

func (h held) Write(b []byte) (int, error) {
	n, err := h.Conn.Write(b[:100])
	if err != nil {
		return n, err
	}
	<-h.waits
	m, err := h.Conn.Write(b[100:])
	return n + m, err
}

// The mark is really set while the reader waits: else the test above could not
// fail.
func TestLowWaterMarkIsSet(t *testing.T) {
	for _, secure := range []bool{false, true} {
		w, r := pair(t, secure, false)
		waits := make(chan bool)
		const size = 100_000
		switch w := w.(type) {
		case *plainWriter:
			w.conn = held{w.conn, waits}
		case *tlsWriter:
			w.batch.hold.Reset(held{w.batch.Conn, waits})
		}
		data := random(1, size)
		var hdr [wire.HeaderSize]byte
		wire.PutData(&hdr, 0, 0, data)
		if !secure { // writev would go around held
			data = append(hdr[:], data...)
			go w.(*plainWriter).conn.Write(data)
		} else {
			go w.writeFrame(&hdr, data, nil)
		}
		read := make(chan error, 1)
		go func() {
			var got [wire.HeaderSize]byte
			h, err := r.header(&got, size, wire.MarkEvery)
			if err == nil {
				err = r.payload(&got, h, make([]byte, h.Length))
			}
			read <- err
		}()
		for mark := 0; mark < size/2; runtime.Gosched() { // ends with the test's time limit
			r.low.sys.Control(func(fd uintptr) {
				mark, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVLOWAT)
			})
		}
		waits <- true
		if err := <-read; err != nil {
			t.Errorf("tls %v: %v", secure, err)
		}
	}
}

// A frame that was damaged is told from one that is whole, wherever the damage is and in however many pieces it
// comes.
func TestDamagedFrame(t *testing.T) {
	const size = 100_000 // seven records
	for _, secure := range []bool{false, true} {
		for _, at := range []int{-1, 0, 16<<10 - 1, 16 << 10, size - 1} { // -1: nowhere
			w, r := pair(t, secure, false)
			if w, plain := w.(*plainWriter); plain {
				w.conn = slowly{w.conn, 7001}
			}
			data := random(1, size)
			var hdr [wire.HeaderSize]byte
			wire.PutData(&hdr, 0, 0, data)
			if at >= 0 {
				data[at] ^= 1
			}
			go w.writeFrame(&hdr, data, nil)
			var got [wire.HeaderSize]byte
			h, err := r.header(&got, 0, wire.MarkEvery)
			if err != nil {
				t.Fatal(err)
			}
			err = r.payload(&got, h, make([]byte, h.Length))
			var ne *wire.Error
			if damaged := errors.As(err, &ne) && ne.Code == wire.CodeCRC; damaged != (at >= 0) || !damaged && err != nil {
				t.Errorf("tls %v, damaged at %d: %v", secure, at, err)
			}
		}
	}
}

// What follows the header on a padded link is zero, so that it can get a meaning later.
func TestPaddingIsZero(t *testing.T) {
	for at := wire.HeaderSize; at < wire.PaddedHeader; at++ {
		w, r := pair(t, false, true)
		var hdr [wire.HeaderSize]byte
		wire.PutFin(&hdr)
		w.(*plainWriter).head.bytes[at] = 1
		if err := w.writeFrame(&hdr, nil, nil); err != nil {
			t.Fatal(err)
		}
		var bad *wire.FrameError
		if _, err := r.header(&hdr, 0, wire.MarkEvery); !errors.As(err, &bad) {
			t.Errorf("byte %d is set: %v", at, err)
		}
	}
}

// Who reads what has come, decrypts it, or encrypts does not wait; who reads what has not come does.
func TestLinksTellWaiting(t *testing.T) {
	for _, secure := range []bool{false, true} {
		w, r := pair(t, secure, false)
		in, out := &activity{kind: waitCPU}, &activity{kind: waitCPU}
		r.low.meter = in
		data := random(1, 30_000) // fits into any receive buffer
		var hdr [wire.HeaderSize]byte
		wire.PutData(&hdr, 0, 0, data)
		send := func() {
			if err := w.writeFrame(&hdr, data, out); err != nil {
				t.Error(err)
			}
		}
		read := func() {
			var got [wire.HeaderSize]byte
			h, err := r.header(&got, len(data), wire.MarkEvery)
			if err == nil {
				err = r.payload(&got, h, make([]byte, h.Length))
			}
			if err != nil {
				t.Error(err)
			}
		}
		send()
		for come := 0; come < r.low.raw(wire.HeaderSize)+r.low.raw(len(data)); runtime.Gosched() { // ends with the test's time limit
			r.low.sys.Control(func(fd uintptr) { come, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
		}
		read()
		if waited := in.take()[waitIn]; waited > 0 {
			t.Errorf("tls %v: waited %v for what had come", secure, waited)
		}
		if took := out.take(); took[waitOut] == 0 || out.kind != waitCPU {
			t.Errorf("tls %v: %v of writing, then %v", secure, took, out.kind)
		}
		done := make(chan bool)
		go func() { read(); close(done) }()
		for kind := waitCPU; kind != waitIn; runtime.Gosched() {
			in.mu.Lock()
			kind = in.kind
			in.mu.Unlock()
		}
		send()
		<-done
		if in.take()[waitIn] == 0 || in.kind != waitCPU {
			t.Errorf("tls %v: did not wait for what had not come, or still does: %v", secure, in.kind)
		}
	}
}
