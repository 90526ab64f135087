package web

import (
	"crypto/rand"
	"crypto/subtle"
	"embed"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path"
	"strings"
	"time"

	"github.com/dolly-img/dolly-img/cache/mirror"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/httpd"
)

//go:embed page
var page embed.FS

// types are those of the files of the page.
var types = map[string]string{".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}

// Bounds of what others may have of this server.
const (
	mostConns   = 64               // connections at once
	takenWithin = 10 * time.Second // until a viewer has taken what it was sent
	stillEvery  = 15 * time.Second // without news a viewer is sent a comment, so that one that is gone is noticed
	sendBuffer  = 64 << 10         // what the kernel keeps for a viewer that reads slowly
)

// A Server serves the page until Close.
type Server struct {
	feed  *feed
	token string
	names []string // by which it may be called, beside its addresses
	host  string   // in its address
	open  bool
	warm  *warmTopic
	stop  func()
}

// CheckAddr reports what is wrong with an address that Listen is to be given.
func CheckAddr(addr string) error {
	_, _, err := split(addr)
	return err
}

// split returns where to listen, and the host that was named, "" if there was none. The loopback interface is meant then.
func split(addr string) (listen, host string, err error) {
	if addr == "" {
		addr = ":0"
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", "", fmt.Errorf("%q: want ADDRESS:PORT, or :PORT", addr)
	}
	if _, err := net.LookupPort("tcp", port); err != nil {
		return "", "", fmt.Errorf("%q: no port", addr)
	}
	if host == "" {
		return net.JoinHostPort("127.0.0.1", port), "", nil
	}
	return addr, host, nil
}

// Listen begins to serve at an address: "" is a free port of the loopback interface, ":PORT" that port of it, and any other
// "HOST:PORT" what it says.
func Listen(addr string) (*Server, error) {
	where, host, err := split(addr)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", where)
	if err != nil {
		return nil, err
	}
	random := make([]byte, 16)
	rand.Read(random)
	s := &Server{feed: newFeed(), warm: &warmTopic{}, token: base64.RawURLEncoding.EncodeToString(random)}
	bound := l.Addr().(*net.TCPAddr)
	name, err := os.Hostname()
	if err != nil {
		name = "localhost" // which is a name of it as well
	}
	s.open = !bound.IP.IsLoopback()
	switch ip, err := netip.ParseAddr(host); {
	case bound.IP.IsUnspecified():
		s.host, s.names = name, []string{name}
	case err == nil:
		s.host = ip.String()
	default:
		s.host, s.names = host, []string{host, name}
	}
	if host == "" || s.host == "" {
		s.host = bound.IP.String()
	}
	s.host = net.JoinHostPort(s.host, fmt.Sprint(bound.Port))
	s.stop = httpd.Serve(narrow{l}, s, mostConns, func(error) {}) // without the page the transfer goes on
	return s, nil
}

// URL is the address of the page, with its token.
func (s *Server) URL() string { return "http://" + s.host + "/" + s.token + "/" }

// Open reports whether other machines can reach the page, which is not encrypted.
func (s *Server) Open() bool { return s.open }

// Watched reports whether anybody looks.
func (s *Server) Watched() bool { return s.feed.watched() }

// Chain adds a transfer to the page.
func (s *Server) Chain(title string) *Chain { return s.feed.chain(title) }

// Close has viewers take the last of it, within a second, and ends the server.
func (s *Server) Close() {
	s.feed.end()
	s.stop()
}

// ServeHTTP answers a request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(takenWithin))
	h := w.Header()
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	token, file, whole := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch {
	case !mirror.Known(r.Host, s.names...):
		http.Error(w, "this page is not known under that name: use its address", http.StatusMisdirectedRequest)
	case subtle.ConstantTimeCompare([]byte(token), []byte(s.token)) != 1:
		http.Error(w, "not found: the address that was printed has a token, which changes each time", http.StatusNotFound)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		h.Set("Allow", "GET, HEAD")
		http.Error(w, "this page is only looked at", http.StatusMethodNotAllowed)
	case r.ContentLength != 0:
		h.Set("Connection", "close")
		http.Error(w, "a body is not read", http.StatusBadRequest)
	case !whole:
		h.Set("Location", token+"/")
		w.WriteHeader(http.StatusFound)
	case file == "events":
		s.events(w, r)
	default:
		s.file(w, file)
	}
}

// file answers with a file of the page.
func (s *Server) file(w http.ResponseWriter, name string) {
	if name == "" {
		name = "index.html"
	}
	data, err := page.ReadFile("page/" + path.Clean("/" + name)[1:])
	kind := types[path.Ext(name)]
	if err != nil || kind == "" {
		http.Error(w, "not found", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", kind)
	_, _ = w.Write(data)
}

// events sends a viewer what is new until it goes.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodHead {
		w.Header().Set("Content-Type", "text/event-stream")
		return
	}
	if !s.feed.enter() {
		w.Header().Set("Retry-After", "30")
		http.Error(w, fmt.Sprintf("%d look already, which is as many as may: close a page, or wait", mostViewers), http.StatusServiceUnavailable)
		return
	}
	defer s.feed.leave()
	w.Header().Set("Content-Type", "text/event-stream")
	c := http.NewResponseController(w)
	seen := map[topic]uint64{}
	send := func(events ...[]byte) error {
		if err := c.SetWriteDeadline(time.Now().Add(takenWithin)); err != nil {
			return err
		}
		for _, e := range events {
			if _, err := w.Write(e); err != nil {
				return err
			}
		}
		return c.Flush()
	}
	if send([]byte("retry: 3000\n\n")) != nil {
		return
	}
	still := time.NewTicker(stillEvery)
	defer still.Stop()
	for {
		events, changed, over := s.feed.next(seen)
		if len(events) > 0 && send(events...) != nil || over {
			return
		}
		select {
		case <-changed:
		case <-still.C:
			if send([]byte(":\n\n")) != nil {
				return
			}
		case <-r.Context().Done():
			return
		}
	}
}

// narrow is a listener whose connections keep little of what a slow viewer has not read.
type narrow struct{ net.Listener }

func (n narrow) Accept() (net.Conn, error) {
	c, err := n.Listener.Accept()
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetWriteBuffer(sendBuffer)
	}
	return c, err
}
