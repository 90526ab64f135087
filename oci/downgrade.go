package oci

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http/httptrace"
	"strings"
	"sync"

	"github.com/containers/image/v5/docker/reference"
	"github.com/containers/image/v5/pkg/sysregistriesv2"
	"github.com/containers/image/v5/types"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

// downgradeGuard stops a registry that is reached with TLS from sending us to an address without TLS. Its redirects, and
// the address where we log in, may be any, and our password would be sent there. The library has no option to
// refuse that. But it says which connection it is about to use, and the guard closes that connection before a
// byte is sent.
type downgradeGuard struct {
	plain map[string]bool // hosts that registries.conf or the user allows to be asked without TLS

	mu     sync.Mutex
	asked  bool            // whether a host was asked yet
	secure map[string]bool // the hosts that were asked with TLS
	now    bool            // whether the host that answers now was asked with TLS
}

var errScheme = errors.New("the registry has TLS and sends us to a place without, which is refused")

// newDowngradeGuard returns the guard for the image with this name.
func newDowngradeGuard(sys *types.SystemContext, named reference.Named) (*downgradeGuard, error) {
	s := &downgradeGuard{plain: map[string]bool{}, secure: map[string]bool{}}
	insecure := sys.DockerInsecureSkipTLSVerify == types.OptionalBoolTrue
	conf, err := sysregistriesv2.FindRegistry(sys, named.Name())
	if err != nil {
		return nil, fmt.Errorf("registries.conf: %w", err)
	}
	if conf == nil {
		s.plain[reference.Domain(named)] = insecure
		return s, nil
	}
	sources, err := conf.PullSourcesFromReference(named)
	if err != nil {
		return nil, fmt.Errorf("registries.conf: %w", err)
	}
	for _, source := range sources {
		host := reference.Domain(source.Reference)
		s.plain[host] = s.plain[host] || insecure || source.Endpoint.Insecure
	}
	return s, nil
}

// watch returns a context that ends when a connection is not allowed.
func (s *downgradeGuard) watch(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancelCause(ctx)
	host := "" // the host of the next request; there is one request at a time in a context
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(to string) { host = to },
		GotConn: func(info httptrace.GotConnInfo) {
			if _, withTLS := info.Conn.(*tls.Conn); !s.allow(host, withTLS) {
				cancel(errScheme)
				info.Conn.Close()
			}
		},
	})
}

// allow notes a connection to host:port, and reports whether it is allowed. A connection without TLS is allowed to a
// registry that was not asked with TLS, and to an address where such a registry sends us.
func (s *downgradeGuard) allow(host string, withTLS bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, named := s.plain[host]
	if short := strings.TrimSuffix(strings.TrimSuffix(host, ":443"), ":80"); !named {
		if _, named = s.plain[short]; named {
			host = short
		}
	}
	first := !s.asked // if the first host is not one of the registry's, it is a proxy
	s.asked = true
	if withTLS {
		s.secure[host] = true
		s.now = s.now || named || first
		return true
	}
	if named {
		if !s.plain[host] || s.secure[host] {
			return false
		}
		s.now = false
		return true
	}
	return !s.now
}

// refused returns errScheme if the guard caused err, or else err.
func refused(ctx context.Context, err error) error {
	if err != nil && errors.Is(context.Cause(ctx), errScheme) {
		return errkind.Errorf("registry-redirect", "%w", errScheme)
	}
	return err
}
