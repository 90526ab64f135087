package oci

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/containers/image/v5/docker"
	"github.com/docker/distribution/registry/api/errcode"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

var (
	stallLimit    = 30 * time.Second // how long a blob may send no byte; less in tests
	manifestLimit = 2 * time.Minute  // how long a request for a manifest may take, with the wait of the library after a 429
	askLimit      = 30 * time.Second // the same for Impatient

	errStalled = errors.New("the registry sends nothing any more")
)

// bounded gives f the time that a manifest may take.
func (r *registry) bounded(ctx context.Context, f func(context.Context) error) error {
	limit := manifestLimit
	if isImpatient(ctx) {
		limit = askLimit
	}
	limited, cancel := context.WithTimeoutCause(ctx, limit, errStalled)
	defer cancel()
	watched := r.guard.watch(limited)
	err := refused(watched, f(watched))
	if err != nil && ctx.Err() == nil && limited.Err() != nil {
		return fmt.Errorf("no answer in %v: %w", limit, context.DeadlineExceeded)
	}
	return err
}

const retries = 4

var firstDelay = 250 * time.Millisecond // it doubles each time; less in tests

// retry calls f until it succeeds, fails for good, or has failed too often.
func retry(ctx context.Context, f func() error) error {
	delay := firstDelay
	for n := 0; ; n++ {
		err := f()
		if err == nil || n == retries || isImpatient(ctx) || !passing(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(delay):
		}
		delay *= 2
	}
}

// passing reports whether the same request may succeed a little later.
func passing(err error) bool {
	if errors.Is(err, errStalled) {
		return true
	}
	if errors.Is(err, errScheme) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, docker.ErrTooManyRequests) {
		return false // after ErrTooManyRequests the library has waited already, as long as the registry asked
	}
	if errors.As(err, new(docker.ErrUnauthorizedForCredentials)) {
		return false
	}
	if s := Status(err); s != 0 {
		return s >= 500
	}
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return !dns.IsNotFound
	}
	if errors.As(err, new(*tls.CertificateVerificationError)) || errors.As(err, new(tls.RecordHeaderError)) ||
		strings.Contains(err.Error(), "HTTP response to HTTPS client") {
		return false
	}
	var op net.Error
	return errors.As(err, &op) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF)
}

// Status returns the HTTP status that a registry answered with and that an error is about, or 0.
func Status(err error) int {
	var unexpected docker.UnexpectedHTTPStatusError
	if errors.As(err, &unexpected) {
		return unexpected.StatusCode
	}
	var many errcode.Errors
	if errors.As(err, &many) && len(many) > 0 {
		err = many[0]
	}
	var one errcode.ErrorCoder
	if errors.As(err, &one) {
		// A code that the library does not know, such as Harbor's NOT_FOUND, counts as 500. But it
		// reads codes only from answers with a status below 500.
		if s := one.ErrorCode().Descriptor().HTTPStatusCode; s < 500 {
			return s
		}
		return 400
	}
	// The error of an answer that is not JSON has no exported type, so the status is taken from its text.
	if i := strings.LastIndex(err.Error(), "StatusCode: "); i >= 0 {
		s, _, _ := strings.Cut(err.Error()[i+len("StatusCode: "):], ",")
		n, _ := strconv.Atoi(s)
		return n
	}
	return 0
}

// explain gives err a kind, so that the administrator is told what to do. It removes the query from URLs, because a
// registry may redirect to an URL that lets everybody in who has it.
func (r *registry) explain(err error) error {
	if err == nil {
		return nil
	}
	if u := (*url.Error)(nil); errors.As(err, &u) {
		u.URL, _, _ = strings.Cut(u.URL, "?")
	}
	s := Status(err)
	var dns *net.DNSError
	denied := s == 401 || s == 403 || errors.As(err, new(docker.ErrUnauthorizedForCredentials))
	switch {
	case s == 429, errors.Is(err, docker.ErrTooManyRequests):
		return errkind.Errorf("registry-limit", "%w", err)
	case denied && r.user != "":
		return errkind.Errorf("registry-denied", "the registry refuses user %s: %w", r.user, err)
	case denied:
		return errkind.Errorf("registry-login", "%w", err)
	case errors.As(err, new(*tls.CertificateVerificationError)):
		return errkind.Errorf("registry-certificate", "%w", err)
	case errors.As(err, new(tls.RecordHeaderError)), strings.Contains(err.Error(), "HTTP response to HTTPS client"):
		return errkind.Errorf("registry-plain", "%w", err)
	case errors.As(err, &dns):
		return errkind.About("registry-name", dns.Name, "%w", err)
	case s == 404:
		return errkind.Errorf("registry-unknown", "%w", err)
	}
	return err
}
