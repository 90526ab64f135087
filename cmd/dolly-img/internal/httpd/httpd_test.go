package httpd

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"
)

// A connection more than there is room for is served once another one has ended, and what is accepted
// is the kernel's own, to which it can send files.
func TestLimitedListener(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	limited := &limitedListener{Listener: l, open: make(chan struct{}, 1), closed: make(chan struct{})}
	states := make(chan string, 10)
	server := &http.Server{
		Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}),
		ConnState: func(c net.Conn, s http.ConnState) {
			if _, is := c.(*net.TCPConn); !is {
				t.Errorf("accepted a %T", c)
			}
			if s == http.StateNew || s == http.StateClosed {
				states <- s.String()
			}
			limited.state(c, s)
		},
	}
	ended := make(chan error)
	go func() { ended <- server.Serve(limited) }()
	get := func() net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", l.Addr().String())
		if err == nil {
			_, err = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		}
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	answer := func(c net.Conn) {
		t.Helper()
		if _, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
			t.Error(err)
		}
	}
	first := get()
	answer(first)
	second := get()
	first.Close()
	answer(second)
	second.Close()
	for _, want := range []string{"new", "closed", "new", "closed"} {
		if got := <-states; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	third := get()
	answer(third)
	if err := server.Close(); err != nil { // also while nothing more can be accepted
		t.Error(err)
	}
	if err := <-ended; err != http.ErrServerClosed {
		t.Error(err)
	}
}
