package mirror

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// What a client may do with a connection before it has taken its answer. Without these limits clients that take nothing would keep
// others out for ever, because only so many are served at once.
const (
	partSize = 1 << 20          // bytes of an answer
	partTime = 30 * time.Second // that a client has for so many
	bodyTime = 10 * time.Second // that it has to send the body of a request, which nobody reads
)

// paced is the answer to a client that has partTime for each part of it.
type paced struct {
	http.ResponseWriter
	conn *http.ResponseController
}

func newPaced(w http.ResponseWriter, r *http.Request) *paced {
	p := &paced{w, http.NewResponseController(w)}
	if r.ContentLength != 0 {
		_ = p.conn.SetReadDeadline(time.Now().Add(bodyTime))
	}
	p.renew()
	return p
}

// renew fails only in tests without a connection.
func (p *paced) renew() { _ = p.conn.SetWriteDeadline(time.Now().Add(partTime)) }

func (p *paced) Write(b []byte) (int, error) {
	p.renew()
	return p.ResponseWriter.Write(b)
}

// ReadFrom is called by http.ServeContent with a limited file, and hands parts of the same form on, so that the kernel can
// send the file by itself.
func (p *paced) ReadFrom(r io.Reader) (sent int64, err error) {
	whole, ok := r.(*io.LimitedReader)
	if !ok {
		return io.Copy(struct{ io.Writer }{p}, r)
	}
	for whole.N > 0 {
		p.renew()
		n, err := io.Copy(p.ResponseWriter, &io.LimitedReader{R: whole.R, N: min(partSize, whole.N)})
		sent += n
		whole.N -= n
		if err != nil || n == 0 {
			return sent, err
		}
	}
	return sent, nil
}

// Named returns a handler that passes to h the requests whose Host is an address, localhost or one of names, and refuses
// the others. A web page on any machine may have a name of its own lead to this address (DNS rebinding), and a browser
// would let it read the answers. It cannot do so under an address or under a name that is not its own.
func Named(h http.Handler, names ...string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !Known(r.Host, names...) {
			w.Header().Set(Header, "1")
			(&failure{http.StatusMisdirectedRequest, "DENIED", fmt.Sprintf("this mirror is not known as %q (hint: use its address, or start the daemon with --mirror-name)", hostname(r.Host))}).write(w)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// Known reports whether the Host of a request is an address, localhost or one of names, with any port or none.
func Known(host string, names ...string) bool {
	host = hostname(host)
	_, err := netip.ParseAddr(host)
	return err == nil || strings.EqualFold(host, "localhost") || slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, host) })
}

// hostname is the Host of a request without its port.
func hostname(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.Trim(host, "[]")
}
