package ring

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/relay"
	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

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
func (t transport) openLink(ctx context.Context, addrs []string, conf *tls.Config, hello wire.LinkHello, secret []byte) (w relay.LinkWriter, err error) {
	err = t.approach(ctx, addrs, func(ctx context.Context, raw net.Conn) (err error) {
		w, err = relay.OpenLink(ctx, raw, conf, hello, secret)
		return err
	})
	return w, err
}

// reach opens a link to a receiver until its challenge has come, and closes it.
func (t transport) reach(ctx context.Context, addrs []string, conf *tls.Config) error {
	return t.approach(ctx, addrs, func(ctx context.Context, raw net.Conn) error {
		if err := relay.ReachLink(ctx, raw, conf); err != nil {
			return err
		}
		return raw.Close()
	})
}

// approach dials a receiver and opens what open says on the connection. All this has timings.link.
// After an error the connection is closed.
func (t transport) approach(ctx context.Context, addrs []string, open func(context.Context, net.Conn) error) error {
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
	if err := open(ctx, raw); err != nil {
		raw.Close()
		return ended(ctx, err)
	}
	raw.SetDeadline(time.Time{})
	return nil
}

// ended is the error of a connection that is closed when ctx ends. It says that the time is over where it is that:
// whoever uses the connection at that moment may hear of the closing first, or of the context.
func ended(ctx context.Context, err error) error {
	if ctx.Err() == context.DeadlineExceeded && (errors.Is(err, net.ErrClosed) || errors.Is(err, ctx.Err())) {
		return os.ErrDeadlineExceeded
	}
	return err
}
