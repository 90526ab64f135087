package metrics

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/httpd"
)

// pipes is a listener for connections that buffer nothing.
type pipes struct{ conns chan net.Conn }

func (p pipes) Accept() (net.Conn, error) {
	c, ok := <-p.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (p pipes) Close() error   { close(p.conns); return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

// Clients that say nothing, or take nothing, keep Prometheus out for ten seconds and no longer.
func TestClientsThatHang(t *testing.T) {
	for _, request := range []string{"", "GET /metrics HTTP/1.1\r\nHost: x\r\n", "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"} {
		synctest.Test(t, func(t *testing.T) {
			l := pipes{make(chan net.Conn)}
			defer httpd.Serve(l, handler(Daemon, []Source{Build{"1", "", ""}.Put}), clients, func(error) {})()
			ask := func(text string) net.Conn {
				near, far := net.Pipe()
				t.Cleanup(func() { near.Close() })
				l.conns <- far
				io.WriteString(near, text)
				return near
			}
			begun := time.Now()
			for range clients {
				ask(request)
			}
			near := ask("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
			resp, err := http.ReadResponse(bufio.NewReader(near), nil)
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(resp.Body)
			if took := time.Since(begun); err != nil || len(text) < 50 || took > answerTime {
				t.Errorf("%q: answered after %v: %v, %s", request, took, err, text)
			}
			near.Close()
		})
	}
}
