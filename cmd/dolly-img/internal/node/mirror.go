package node

import (
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/cache/mirror"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/httpd"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/metrics"
	"github.com/dolly-img/dolly-img/ring/errkind"
)

// ServeMirror serves the cache at addr until stop is called. It does nothing if addr is "". Clients may call the mirror by
// names, besides by its addresses and the name of this machine.
func (s *Node) ServeMirror(addr string, names ...string) (stop func(), err error) {
	if addr == "" {
		return func() {}, nil
	}
	l, err := listenMirror(addr, s.access)
	if err != nil {
		return nil, err
	}
	s.counts.mirror = metrics.NewCounter(metrics.MirrorRequests)
	handler := mirror.New(s.cache, s.log, s.counts.answered)
	if _, ok := l.Addr().(*net.TCPAddr); ok { // no web page reaches a socket in the file system
		handler = mirror.Named(handler, append(names, namesOf(addr)...)...)
	}
	stop = s.serveMirror(l, handler)
	s.log.Info("mirror", "address", l.Addr().String())
	if tcp, ok := l.Addr().(*net.TCPAddr); ok && !tcp.IP.IsLoopback() {
		s.log.Warn("the mirror has no TLS, and everybody who reaches its address can read the cache", "address", tcp.String())
	}
	if _, ok := l.Addr().(*net.TCPAddr); ok && s.access.Bits(0o666) != 0o666 {
		s.log.Warn("every user of this node can read the cache through the mirror, whatever mode policy.toml sets; unix:PATH keeps them out")
	}
	return stop, nil
}

// namesOf returns the name in the address of a mirror and that of this machine.
func namesOf(addr string) (names []string) {
	if host, _, err := net.SplitHostPort(addr); err == nil && host != "" {
		names = append(names, host)
	}
	if own, err := os.Hostname(); err == nil {
		names = append(names, own)
	}
	return names
}

// mirrorClients is how many connections a mirror has at once. No runtime opens so many, and they are few enough to leave the
// daemon its descriptors.
const mirrorClients = 256

// serveMirror serves a mirror at l until stop is called.
func (s *Node) serveMirror(l net.Listener, handler http.Handler) (stop func()) {
	return httpd.Serve(l, handler, mirrorClients, func(err error) { s.log.Error("mirror failed", "error", err) })
}

func listenMirror(addr string, access cache.Access) (net.Listener, error) {
	path, ok := strings.CutPrefix(addr, "unix:")
	if !ok {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return nil, errkind.Errorf("mirror-taken", "mirror on %s: %w", addr, bare(err))
		}
		return l, nil
	}
	// A socket that a killed daemon left answers nobody.
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == fs.ModeSocket {
		if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
			c.Close()
			return nil, fmt.Errorf("mirror on %s: another process listens there", addr)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("mirror on %s: %w", addr, err)
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("mirror on %s: %w", addr, bare(err))
	}
	// The runtime of a user may read through the socket what the user may read on disk.
	if err := access.Socket(path); err != nil {
		l.Close()
		return nil, fmt.Errorf("mirror on %s: %w", addr, err)
	}
	return l, nil
}
