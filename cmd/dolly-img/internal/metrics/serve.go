package metrics

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"strconv"
	"time"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/httpd"
	"github.com/dolly-img/dolly-img/ring/errkind"
)

const (
	// clients is how many connections there are at once. Each server of Prometheus has one.
	clients = 32
	// answerTime bounds how long a client may take for a request and its answer.
	answerTime = 10 * time.Second
	// contentType is that of the text format.
	contentType = "text/plain; version=0.0.4; charset=utf-8"
)

var hostForm = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$`)

// Address returns where to listen for an address of the command line. A port alone, as in 9997 or :9997, is one of 127.0.0.1.
func Address(text string) (string, error) {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		host, port = "", text
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || port != strconv.FormatUint(n, 10) {
		return "", fmt.Errorf("want ADDRESS:PORT, or PORT alone for 127.0.0.1, and a port up to 65535")
	}
	if host == "" {
		return "127.0.0.1:" + port, nil
	}
	if _, err := netip.ParseAddr(host); err != nil && !hostForm.MatchString(host) {
		return "", fmt.Errorf("%q is neither an address nor a name of a host", host)
	}
	return net.JoinHostPort(host, port), nil
}

// Serve answers scrapes at addr, which Address returned, until stop is called.
func Serve(addr string, log *slog.Logger, all []*Metric, sources ...Source) (stop func(), err error) {
	l, err := net.Listen("tcp", addr)
	if op := new(net.OpError); errors.As(err, &op) {
		err = op.Err // which does not say the address again
	}
	if err != nil {
		return nil, errkind.Errorf("metrics-taken", "metrics on %s: %w", addr, err)
	}
	log.Info("metrics", "address", l.Addr().String())
	if a := l.Addr().(*net.TCPAddr); !a.IP.IsLoopback() {
		log.Warn("the metrics have no TLS, and everybody who reaches their address can read them", "address", a.String())
	}
	return httpd.Serve(l, handler(all, sources), clients, func(err error) { log.Error("metrics failed", "error", err) }), nil
}

// handler answers GET and HEAD of /metrics, and says at / where that is.
func handler(all []*Metric, sources []Source) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(w, "The metrics of this dolly-img are at /metrics.\n")
	})
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close") // an idle one would keep its place for longer than answerTime
		ctx, cancel := context.WithTimeout(r.Context(), answerTime/2)
		defer cancel()
		b := Text(ctx, all, sources...)
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Content-Length", strconv.Itoa(len(b)))
		if r.Method == http.MethodGet {
			_, _ = w.Write(b)
		}
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := http.NewResponseController(w)
		_ = c.SetReadDeadline(time.Now().Add(answerTime)) // these fail in tests without a connection only
		_ = c.SetWriteDeadline(time.Now().Add(answerTime))
		mux.ServeHTTP(w, r)
	})
}
