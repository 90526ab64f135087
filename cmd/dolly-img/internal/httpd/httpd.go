// Package httpd runs small HTTP servers beside what a process is for: they have few connections and no client holds one for ever.
package httpd

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"
)

// Serve lets a handler answer at l, to so many connections at once, until stop is called. failed is told if l fails before.
// Answers have no time limit. A handler whose clients may take long sets deadlines of its own (http.ResponseController).
func Serve(l net.Listener, handler http.Handler, clients int, failed func(error)) (stop func()) {
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
	}
	limited := &limitedListener{Listener: l, open: make(chan struct{}, clients), closed: make(chan struct{})}
	server.ConnState = limited.state
	go func() {
		if err := server.Serve(limited); !errors.Is(err, http.ErrServerClosed) {
			failed(err)
		}
	}()
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if server.Shutdown(ctx) != nil {
			server.Close()
		}
	}
}

// limitedListener accepts no more connections than open has room for. Unlike netutil.LimitListener it does not wrap the
// connections that it accepts, so that the kernel can send files by itself.
type limitedListener struct {
	net.Listener
	open   chan struct{}
	closed chan struct{}
	once   sync.Once
}

func (l *limitedListener) Accept() (net.Conn, error) {
	select {
	case l.open <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.open
	}
	return conn, err
}

func (l *limitedListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// state is called by the server when the state of a connection changes.
func (l *limitedListener) state(_ net.Conn, s http.ConnState) {
	if s == http.StateClosed || s == http.StateHijacked {
		<-l.open
	}
}
