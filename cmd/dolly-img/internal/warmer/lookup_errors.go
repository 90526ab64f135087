package warmer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/opencontainers/go-digest"

	"github.com/dolly-img/dolly-img/oci"
	"github.com/dolly-img/dolly-img/ring/errkind"
	"github.com/dolly-img/dolly-img/ring/printable"
)

// failure is an error in words for whoever reads the status.
type failure struct {
	text string
	error
}

func (f *failure) Error() string { return f.text }
func (f *failure) Unwrap() error { return f.error }

// Sure reports whether the registry has said that it does not give the image, and would say so again soon: 401, 403 or 404. All else may be over the
// next time: a registry is away or fails, an answer breaks off, or a file is still being written.
func (f *failure) Sure() bool {
	if kind, _ := errkind.Of(f.error); kind == "registry-login" || kind == "registry-denied" {
		return true
	}
	return slices.Contains([]int{http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound}, oci.Status(f.error))
}

// told says in plain words why a lookup failed. What it says has no credentials.
func told(err error) error {
	var (
		cert  *tls.CertificateVerificationError
		limit *oci.LimitError
		kind  errkind.Kind
	)
	kind, _ = errkind.Of(err)
	status := oci.Status(err)
	text := ""
	switch {
	case errors.As(err, &limit):
		text = limit.Error()
	case status == http.StatusUnauthorized || status == http.StatusForbidden || kind == "registry-login" || kind == "registry-denied":
		text = "the registry does not let us read it: give an authfile that has a login which may, or make the image public"
		if status != 0 {
			text = fmt.Sprintf("%s (%d)", text, status)
		}
	case status == http.StatusNotFound:
		text = "the registry has no such image or tag (404)"
	case status >= 500:
		text = fmt.Sprintf("the registry fails (%d %s)", status, http.StatusText(status))
	case errors.As(err, &cert):
		text = fmt.Sprintf("the certificate of the registry is not trusted: %v", cert.Err)
	case kind == "registry-plain":
		text = "the registry has no TLS: registries.conf says with insecure = true that it may be asked without"
	case kind == "registry-name":
		text = "the name of the registry is not known to DNS"
	case errors.Is(err, syscall.ECONNREFUSED):
		text = "the registry is not there: the connection is refused"
	case errors.Is(err, context.DeadlineExceeded):
		text = "the registry does not answer"
	default:
		text = clean(err.Error())
	}
	return &failure{text, err}
}

// ofRegistry reports whether a failure of one tag is to be expected of all others: the registry is away, or wants to be left alone.
func ofRegistry(err error) bool {
	var network net.Error
	var limit *oci.LimitError
	status := oci.Status(err)
	return errors.As(err, &limit) || errors.As(err, &network) || status == http.StatusUnauthorized || status >= 500 || errors.Is(err, context.DeadlineExceeded)
}

const longestText = 300 // bytes of an error that comes from elsewhere

var (
	quoted = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`) // in which a URL may have blanks
	bare   = regexp.MustCompile(`//[^\s"]*`)
	query  = regexp.MustCompile(`\?[^\s"]*`)
	bearer = regexp.MustCompile(`(?i)\b(basic|bearer)\s+[^\s",]+`)
)

// withoutUser removes user and password from a text that is a URL from its first // on. A digest that follows an @ is none of a host.
func withoutUser(text string) string {
	start := strings.Index(text, "//") + len("//")
	if start < len("//") {
		return text
	}
	for at := strings.LastIndexByte(text, '@'); at >= start; at = strings.LastIndexByte(text[:at], '@') {
		algorithm, _, _ := strings.Cut(text[at+1:], ":")
		if !digest.Algorithm(algorithm).Available() {
			return text[:start] + text[at+1:]
		}
	}
	return text
}

// clean removes from a text what may let others in: users and passwords in URLs, their queries, and tokens.
func clean(text string) string {
	text = bare.ReplaceAllStringFunc(quoted.ReplaceAllStringFunc(text, withoutUser), withoutUser)
	text = query.ReplaceAllString(text, "")
	text = bearer.ReplaceAllString(text, "$1 …")
	text = printable.Line(text)
	if len(text) > longestText {
		text = printable.Line(text[:longestText]) + "…"
	}
	return text
}
