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

// downgradeGuard stops a registry that is reached with TLS from sending us to a place without it: its
// redirects, and the place where we log in, may name any address, and our password would go along. The
// library cannot be told to refuse that. But it says which connection it is about to use, and the guard
// closes that one before a byte is sent.
type downgradeGuard struct {
	plain map[string]bool // hosts that may be asked without TLS, as registries.conf or the user says

	mu     sync.Mutex
	asked  bool            // somebody was
	secure map[string]bool // of these, and of the others, those that were asked with TLS
	now    bool            // the one that serves was asked with TLS
}

var errScheme = errors.New("the registry has TLS and sends us to a place without, which is refused")

// newDowngradeGuard is for the image that named is.
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

// watch ends the context when a connection is not allowed.
func (s *downgradeGuard) watch(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancelCause(ctx)
	host := "" // of the request that comes next: there is one at a time in a context
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

// allow notes a connection to host:port. Without TLS it is for a registry that was not asked with
// it, or for where one without TLS sends us.
func (s *downgradeGuard) allow(host string, withTLS bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, named := s.plain[host]
	if short := strings.TrimSuffix(strings.TrimSuffix(host, ":443"), ":80"); !named {
		if _, named = s.plain[short]; named {
			host = short
		}
	}
	first := !s.asked // where that is none of ours it is a proxy for them
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

// refused is err, or errScheme where that is why.
func refused(ctx context.Context, err error) error {
	if err != nil && errors.Is(context.Cause(ctx), errScheme) {
		return errkind.Errorf("registry-redirect", "%w", errScheme)
	}
	return err
}
