package ring

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
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

// connect opens a connection to one address. Its error is a *dialError.
func (t transport) connect(ctx context.Context, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, timings.connect)
	defer cancel()
	begun := time.Now()
	c, err := t.dial(ctx, addr)
	if err != nil {
		return nil, &dialError{addr, time.Since(begun), err}
	}
	return c, nil
}

// maxBeside is how many addresses of a peer are tried beside each other: each takes a socket and the memory of a handshake.
const maxBeside = 4

// firstOf tries the addresses of a peer in order. To try one is to go all the way up to the proven peer. The result is what try
// made where it succeeded first, or the errors of the addresses in their order.
//
// The next address is tried when one has failed, or has had its share of the time. What is under way goes on beside it,
// because a peer may only be slow (the idea is that of RFC 8305). Of more than maxBeside the oldest is given up.
func firstOf[T io.Closer](ctx context.Context, addrs []string, try func(ctx context.Context, addr string) (T, error)) (made T, errs []error) {
	if len(addrs) == 0 {
		return made, []error{errors.New("no address")}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		nth  int
		made T
		err  error
	}
	results := make(chan result, len(addrs))
	begun, ended := 0, 0
	giveUp := make([]context.CancelFunc, len(addrs))
	begin := func() (share <-chan time.Time) {
		nth, limit := begun, timings.connect
		begun++
		ctx, cancel := context.WithCancel(ctx)
		if giveUp[nth] = cancel; nth >= maxBeside {
			giveUp[nth-maxBeside]()
		}
		go func() {
			defer cancel()
			made, err := try(ctx, addrs[nth])
			results <- result{nth, made, err}
		}()
		if until, ok := ctx.Deadline(); ok {
			limit = min(limit, time.Until(until)/time.Duration(len(addrs)-nth))
		}
		return time.After(limit)
	}
	errs = make([]error, len(addrs))
	for share := begin(); ended < begun; {
		select {
		case r := <-results:
			ended++
			if r.err == nil {
				go func() {
					for range begun - ended {
						if late := <-results; late.err == nil {
							late.made.Close()
						}
					}
				}()
				return r.made, nil
			}
			errs[r.nth] = r.err
		case <-share:
		}
		if begun < len(addrs) && ctx.Err() == nil {
			share = begin()
		}
	}
	return made, errs[:begun]
}

// openLink dials a receiver, proves the link and returns its sending side. A nil
// conf sends plain frames.
func (t transport) openLink(ctx context.Context, addrs []string, conf *tls.Config, hello wire.LinkHello, secret []byte) (relay.LinkWriter, error) {
	return approach(ctx, t, addrs, func(ctx context.Context, raw net.Conn) (relay.LinkWriter, error) {
		return relay.OpenLink(ctx, raw, conf, hello, secret)
	})
}

// reach opens a link to a receiver until its challenge has come, and closes it.
func (t transport) reach(ctx context.Context, addrs []string, conf *tls.Config) error {
	conn, err := approach(ctx, t, addrs, func(ctx context.Context, raw net.Conn) (net.Conn, error) {
		return raw, relay.ReachLink(ctx, raw, conf)
	})
	if err != nil {
		return err
	}
	return conn.Close()
}

// approach dials a receiver and opens what open says on the connection. All this has timings.link.
// After an error the connection is closed.
func approach[T io.Closer](ctx context.Context, t transport, addrs []string, open func(context.Context, net.Conn) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, timings.link)
	defer cancel()
	opened, errs := firstOf(ctx, addrs, func(ctx context.Context, addr string) (opened T, err error) {
		raw, err := t.connect(ctx, addr)
		if err != nil {
			return opened, err
		}
		stop := context.AfterFunc(ctx, func() { raw.Close() })
		defer stop()
		if d, ok := ctx.Deadline(); ok {
			raw.SetDeadline(d)
		}
		if opened, err = open(ctx, raw); err != nil {
			raw.Close()
			return opened, ended(ctx, err)
		}
		raw.SetDeadline(time.Time{})
		return opened, nil
	})
	switch len(errs) {
	case 0:
		return opened, nil
	case 1:
		return opened, errs[0]
	}
	return opened, unopened{addrs, errs}
}

// unopened is the error of a link that could be opened at none of several addresses.
type unopened struct {
	addrs []string
	errs  []error
}

func (e unopened) Error() string {
	var all []string
	for i, err := range e.errs {
		all = append(all, e.addrs[i]+": "+relay.Bare(err).Error())
	}
	return strings.Join(all, "; ")
}

// ended is the error of a connection that is closed when ctx ends. It says that the time is over where it is that:
// whoever uses the connection at that moment may hear of the closing first, or of the context.
func ended(ctx context.Context, err error) error {
	if ctx.Err() == context.DeadlineExceeded && (errors.Is(err, net.ErrClosed) || errors.Is(err, ctx.Err())) {
		return os.ErrDeadlineExceeded
	}
	return err
}
