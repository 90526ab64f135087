package memnet

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// pair is a connection from host a to host b.
func pair(t *testing.T, n *Net) (near, far net.Conn) {
	t.Helper()
	l := n.Listen("b:1")
	near, err := n.Host("a").Dial(t.Context(), "b:1")
	if err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return near, far
}

func in(t *testing.T, f func(t *testing.T, n *Net)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, &Net{Buffer: 64 << 10}) })
}

func took(t *testing.T, what string, since time.Time, want time.Duration) {
	t.Helper()
	if d := time.Since(since); d != want {
		t.Errorf("%s took %v, want %v", what, d, want)
	}
}

func say(t *testing.T, c net.Conn, s string) {
	t.Helper()
	if n, err := io.WriteString(c, s); n != len(s) || err != nil {
		t.Fatalf("wrote %d of %d bytes: %v", n, len(s), err)
	}
}

func hear(t *testing.T, c net.Conn, want string) {
	t.Helper()
	b := make([]byte, len(want))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != want {
		t.Fatalf("read %q, %v, want %q", b, err, want)
	}
}

func fails(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func TestBytesAndEnd(t *testing.T) {
	in(t, func(t *testing.T, n *Net) {
		a, b := pair(t, n)
		data := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
		go func() {
			a.Write(data)
			a.Close()
		}()
		got, err := io.ReadAll(b)
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		_, err = a.Write(data)
		fails(t, "write after close", err, net.ErrClosed)
		_, err = b.Write(data)
		fails(t, "write to a closed end", err, syscall.ECONNRESET)
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		if len(n.conns) != 0 {
			t.Errorf("%d connections are kept", len(n.conns))
		}
		if a.LocalAddr().String() == b.LocalAddr().String() || a.LocalAddr().String() != b.RemoteAddr().String() {
			t.Error(a.LocalAddr(), b.RemoteAddr())
		}
	})
}

// A writer fills the buffer and no more; deadlines end both sides and can be moved.
func TestBufferAndDeadlines(t *testing.T) {
	in(t, func(t *testing.T, n *Net) {
		a, b := pair(t, n)
		start := time.Now()
		a.SetWriteDeadline(start.Add(time.Second))
		k, err := a.Write(make([]byte, 100<<10))
		if ne, ok := err.(net.Error); k != 64<<10 || !ok || !ne.Timeout() {
			t.Errorf("%d bytes, %v", k, err)
		}
		took(t, "write", start, time.Second)
		a.SetReadDeadline(start.Add(2 * time.Second))
		time.AfterFunc(500*time.Millisecond, func() { a.SetReadDeadline(start.Add(5 * time.Second)) })
		_, err = a.Read(make([]byte, 1))
		fails(t, "read", err, os.ErrDeadlineExceeded)
		took(t, "read", start, 5*time.Second)
		a.SetDeadline(time.Time{})
		time.AfterFunc(time.Minute, func() { say(t, b, "x") })
		hear(t, a, "x")
	})
}

// What was unread makes a close a reset, as with TCP.
func TestResetByClose(t *testing.T) {
	in(t, func(t *testing.T, n *Net) {
		a, b := pair(t, n)
		say(t, a, "unread")
		say(t, b, "last words")
		b.Close()
		hear(t, a, "last words")
		_, err := a.Read(make([]byte, 1))
		fails(t, "read", err, syscall.ECONNRESET)
	})
}

func TestKill(t *testing.T) {
	in(t, func(t *testing.T, n *Net) {
		a, b := pair(t, n)
		say(t, b, "seen")
		n.Kill("b")
		hear(t, a, "seen")
		_, err := a.Read(make([]byte, 1))
		fails(t, "read", err, syscall.ECONNRESET)
		_, err = a.Write([]byte("x"))
		fails(t, "write", err, syscall.ECONNRESET)
		_, err = b.Read(make([]byte, 1))
		fails(t, "own read", err, net.ErrClosed)
		_, err = n.Host("a").Dial(t.Context(), "b:1")
		fails(t, "dial", err, syscall.ECONNREFUSED)
		_, err = n.Host("b").Dial(t.Context(), "a:1")
		fails(t, "dial from the dead", err, syscall.ENETUNREACH)
		n.Listen("b:1")
		if _, err = n.Host("a").Dial(t.Context(), "b:1"); err != nil {
			t.Error("dial after its return:", err)
		}
	})
}

func TestFreeze(t *testing.T) {
	in(t, func(t *testing.T, n *Net) {
		a, b := pair(t, n)
		n.Freeze("b")
		say(t, a, "to b")
		say(t, b, "to a")
		start := time.Now()
		for _, c := range []net.Conn{a, b} {
			c.SetReadDeadline(time.Now().Add(time.Second))
			_, err := c.Read(make([]byte, 1))
			fails(t, "read", err, os.ErrDeadlineExceeded)
			c.SetReadDeadline(time.Time{})
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := n.Host("a").Dial(ctx, "b:1")
		if ne, ok := err.(net.Error); !ok || !ne.Timeout() {
			t.Errorf("dial: %v", err)
		}
		took(t, "dial", start, 3*time.Second)
		time.AfterFunc(time.Second, func() { n.Thaw("b") })
		if _, err := n.Host("a").Dial(t.Context(), "b:1"); err != nil {
			t.Error(err)
		}
		hear(t, a, "to a")
		hear(t, b, "to b")
		took(t, "all", start, 4*time.Second)
	})
}

// A reset does not travel where nothing travels.
func TestKillOfFrozen(t *testing.T) {
	in(t, func(t *testing.T, n *Net) {
		a, _ := pair(t, n)
		n.Freeze("b")
		n.Kill("b")
		say(t, a, "into the void")
		time.AfterFunc(time.Minute, func() { n.Thaw("b") })
		start := time.Now()
		_, err := a.Read(make([]byte, 1))
		fails(t, "read", err, syscall.ECONNRESET)
		took(t, "read", start, time.Minute)
	})
}

func TestOneWayCut(t *testing.T) {
	in(t, func(t *testing.T, n *Net) {
		a, b := pair(t, n)
		n.Cut("a", "b")
		say(t, b, "to a")
		hear(t, a, "to a") // this way is open, but no acknowledgement comes
		b.SetWriteDeadline(time.Now().Add(time.Second))
		defer a.Close()
		go io.Copy(io.Discard, a)
		k, err := b.Write(make([]byte, 100<<10))
		if fails(t, "write", err, os.ErrDeadlineExceeded); k != 64<<10-len("to a") {
			t.Errorf("%d bytes", k)
		}
		say(t, a, "to b")
		b.SetDeadline(time.Now().Add(time.Second))
		_, err = b.Read(make([]byte, 1))
		fails(t, "read", err, os.ErrDeadlineExceeded)
		b.SetDeadline(time.Time{})
		n.Heal("a", "b")
		hear(t, b, "to b")
		say(t, b, string(make([]byte, 100<<10)))
	})
}

func TestShape(t *testing.T) {
	in(t, func(t *testing.T, n *Net) {
		n.Shape("a", "b", 1<<20, 10*time.Millisecond)
		n.Shape("b", "a", 0, 10*time.Millisecond)
		start := time.Now()
		a, b := pair(t, n)
		took(t, "dial", start, 20*time.Millisecond)
		start = time.Now()
		go a.Write(make([]byte, 1<<20))
		if _, err := io.ReadFull(b, make([]byte, 1<<20)); err != nil {
			t.Error(err)
		}
		took(t, "1 MiB", start, time.Second+10*time.Millisecond)
		n.Shape("a", "b", 0, 0)
		start = time.Now()
		say(t, b, "x")
		hear(t, a, "x")
		took(t, "a byte", start, 10*time.Millisecond)
	})
}

func TestDamage(t *testing.T) {
	for _, c := range []struct {
		d    Damage
		want string
	}{
		{Damage{Offset: 2}, "ab\x73defghij"},
		{Damage{Offset: 2, Every: 5, First: 'a'}, "ab\x73defg\x78ij"},
		{Damage{Offset: 2, Every: 5, Times: 1}, "ab\x73defghij"},
		{Damage{Offset: 0, First: 'x'}, "abcdefghij"},
		{Damage{Offset: 4, Drop: 3}, "abcdhij"},
		{Damage{Offset: 4, Repeat: 3}, "abcdefgefghij"},
	} {
		in(t, func(t *testing.T, n *Net) {
			a, b := pair(t, n)
			n.Damage("a", "b", c.d)
			say(t, a, "abcdefghij")
			a.Close()
			if got, _ := io.ReadAll(b); string(got) != c.want {
				t.Errorf("%+v: %q, want %q", c.d, got, c.want)
			}
		})
	}
}

func TestResetAndStall(t *testing.T) {
	in(t, func(t *testing.T, n *Net) {
		a, b := pair(t, n)
		a2, b2 := pair(t, n)
		say(t, a, "D")
		say(t, a2, "C")
		if k := n.Stall("a", "b", 'C'); k != 1 {
			t.Errorf("%d stalled", k)
		}
		if k := n.Reset("a", "b", 'D'); k != 1 {
			t.Errorf("%d reset", k)
		}
		hear(t, b, "D")
		for _, c := range []net.Conn{a, b} {
			_, err := c.Read(make([]byte, 1))
			fails(t, "read", err, syscall.ECONNRESET)
			_, err = c.Write([]byte("x"))
			fails(t, "write", err, syscall.ECONNRESET)
		}
		hear(t, b2, "C") // it had arrived
		say(t, a2, "later")
		b2.SetReadDeadline(time.Now().Add(time.Hour))
		_, err := b2.Read(make([]byte, 1))
		fails(t, "read", err, os.ErrDeadlineExceeded)
		b2.SetReadDeadline(time.Time{})
		n.Unstall("a", "b")
		hear(t, b2, "later")
	})
}

func TestListenerClose(t *testing.T) {
	in(t, func(t *testing.T, n *Net) {
		l := n.Listen("b:1")
		a, err := n.Dial(t.Context(), "b:1")
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		_, err = a.Read(make([]byte, 1))
		fails(t, "read of what nobody accepts", err, syscall.ECONNRESET)
		_, err = l.Accept()
		fails(t, "accept", err, net.ErrClosed)
		_, err = n.Dial(t.Context(), "b:1")
		fails(t, "dial", err, syscall.ECONNREFUSED)
	})
}
