package oci

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/containers/image/v5/docker"
	"github.com/containers/image/v5/docker/reference"
	"github.com/containers/image/v5/pkg/blobinfocache/none"
	"github.com/containers/image/v5/pkg/shortnames"
	"github.com/containers/image/v5/types"
	"github.com/docker/distribution/registry/api/errcode"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

// RegistryOptions say how to talk to a registry; what is not said here the files of the
// containers tools say.
type RegistryOptions struct {
	AuthFile  string // auth.json; "": $REGISTRY_AUTH_FILE, then the user's
	CertDir   string // *.crt, *.cert and *.key of the registry; "": /etc/containers/certs.d
	TLSVerify *bool  // nil: as registries.conf says
	// User and Password are used in place of what AuthFile has, where User is not "".
	User, Password string
	// RegistriesConf replaces registries.conf; "": $CONTAINERS_REGISTRIES_CONF, then
	// the system's.
	RegistriesConf string
}

func (o RegistryOptions) system() *types.SystemContext {
	mode := types.ShortNameModeDisabled // nobody is asked: all registries are tried in order
	sys := &types.SystemContext{
		AuthFilePath:             o.AuthFile,
		DockerCertPath:           o.CertDir,
		SystemRegistriesConfPath: o.RegistriesConf,
		ShortNameMode:            &mode,
		DockerRegistryUserAgent:  "dolly-img",
	}
	if sys.AuthFilePath == "" {
		sys.AuthFilePath = os.Getenv("REGISTRY_AUTH_FILE")
	}
	if sys.SystemRegistriesConfPath == "" {
		sys.SystemRegistriesConfPath = os.Getenv("CONTAINERS_REGISTRIES_CONF")
	}
	if o.TLSVerify != nil {
		sys.DockerInsecureSkipTLSVerify = types.NewOptionalBool(!*o.TLSVerify)
	}
	if o.User != "" {
		sys.DockerAuthConfig = &types.DockerAuthConfig{Username: o.User, Password: o.Password}
	}
	return sys
}

// registry is an image in a registry. Its mirrors were tried when it was opened; from
// then on the one that answered serves all.
type registry struct {
	src    types.ImageSource
	digest digest.Digest // the reference has; else ""
	guard  *downgradeGuard
	user   string // of the options
}

func init() {
	// The library warns of what its errors say again, in its own format.
	logrus.SetOutput(io.Discard)
}

func openRegistry(ctx context.Context, name string, o RegistryOptions) (store, string, error) {
	sys := o.system()
	candidates, err := names(sys, name)
	if err != nil {
		return nil, "", err
	}
	if o.User != "" && len(candidates) > 1 {
		return nil, "", errkind.Errorf("name-ambiguous", "%q may be an image of %d registries, and a password is only for one of them", name, len(candidates))
	}
	var first error
	for _, named := range candidates {
		named = oneOf(reference.TagNameOnly(named))
		r := &registry{user: o.User}
		err := r.connect(ctx, sys, named, !shortnames.IsShortName(name))
		if err == nil {
			return r, named.String(), nil
		}
		if err = r.explain(err); len(candidates) > 1 {
			err = fmt.Errorf("%s: %w", named, err)
		}
		if first == nil {
			first = err
		} else {
			first = fmt.Errorf("%w; %w", first, err)
		}
	}
	return nil, "", first
}

// connect finds the mirror that has the image, else the registry itself. typed says that the user has written
// its host.
func (r *registry) connect(ctx context.Context, sys *types.SystemContext, named reference.Named, typed bool) error {
	ref, err := docker.NewReference(named)
	if err != nil {
		return err
	}
	all, free := sys, func() {}
	err = retry(ctx, func() error {
		sys, free, err = withoutNodes(ctx, all, named, typed)
		return err
	})
	defer free()
	if err != nil {
		return err
	}
	if r.guard, err = newDowngradeGuard(sys, named); err != nil {
		return err
	}
	if d, ok := named.(reference.Digested); ok {
		r.digest = d.Digest()
	}
	return retry(ctx, func() error {
		return r.bounded(ctx, func(ctx context.Context) error {
			r.src, err = ref.NewImageSource(ctx, sys)
			return err
		})
	})
}

func (r *registry) rootManifest(ctx context.Context) (raw []byte, mediaType string, err error) {
	err = retry(ctx, func() error {
		return r.bounded(ctx, func(ctx context.Context) error {
			raw, mediaType, err = r.src.GetManifest(ctx, nil)
			return err
		})
	})
	if err == nil && r.digest != "" {
		err = checkDigest(raw, r.digest)
	}
	return raw, mediaType, r.explain(err)
}

func (r *registry) manifest(ctx context.Context, d v1.Descriptor) (raw []byte, err error) {
	err = retry(ctx, func() error {
		return r.bounded(ctx, func(ctx context.Context) error {
			raw, _, err = r.src.GetManifest(ctx, &d.Digest)
			return err
		})
	})
	return raw, r.explain(err)
}

func (r *registry) blob(ctx context.Context, d v1.Descriptor, off int64) (io.ReadCloser, error) {
	b := &blobReader{ctx: ctx, r: r, d: d, off: off}
	if err := retry(ctx, b.open); err != nil {
		b.watch.end()
		return nil, r.explain(err)
	}
	return b, nil
}

func (r *registry) Close() error { return r.src.Close() }

// blobReader reads a blob through whatever breaks: the library asks for the rest of
// one that stops after some progress, by range; where that does not help it is
// asked for anew.
type blobReader struct {
	ctx   context.Context
	r     *registry
	d     v1.Descriptor
	body  io.ReadCloser
	off   int64 // of the next byte
	tries int   // without a byte in between
	err   error // came with the last bytes
	watch *watch
}

func (b *blobReader) open() error {
	b.watch.end()
	b.watch = newWatch(b.ctx, b.r.guard)
	body, size, err := b.r.src.GetBlob(b.watch.ctx, types.BlobInfo{Digest: b.d.Digest, Size: b.d.Size}, none.NoCache)
	if err != nil {
		return b.watch.cause(err)
	}
	if size >= 0 && size != b.d.Size {
		body.Close()
		err := fmt.Errorf("the registry has %d bytes of it, and the manifest says %d", size, b.d.Size)
		if size < b.d.Size { // may be what a proxy had so far
			err = fmt.Errorf("%w: %w", err, io.ErrUnexpectedEOF)
		}
		return &wrong{err}
	}
	b.watch.pause()
	b.body = body
	buf := make([]byte, 64<<10)
	for left := b.off; left > 0; {
		n, err := b.read(buf[:min(left, int64(len(buf)))])
		if left -= int64(n); err != nil && left > 0 {
			body.Close()
			return noEOF(err)
		}
	}
	return nil
}

// read reads what the registry sends, for as long as it sends something.
func (b *blobReader) read(p []byte) (int, error) {
	b.watch.begin()
	n, err := b.body.Read(p)
	b.watch.pause()
	return n, b.watch.cause(err)
}

// watch ends a request when the registry says nothing for stallLimit.
type watch struct {
	ctx     context.Context
	cancel  context.CancelFunc
	timer   *time.Timer
	stalled atomic.Bool
}

func newWatch(ctx context.Context, s *downgradeGuard) *watch {
	w := &watch{}
	ctx, w.cancel = context.WithCancel(ctx)
	w.ctx = s.watch(ctx)
	w.timer = time.AfterFunc(stallLimit, func() {
		w.stalled.Store(true)
		w.cancel()
	})
	return w
}

func (w *watch) begin() { w.timer.Reset(stallLimit) }
func (w *watch) pause() { w.timer.Stop() } // whoever reads may take his time

func (w *watch) cause(err error) error {
	if err != nil && w.stalled.Load() {
		return errStalled
	}
	return refused(w.ctx, err)
}

func (w *watch) end() {
	if w != nil {
		w.timer.Stop()
		w.cancel()
	}
}

var (
	stallLimit    = 30 * time.Second // without a byte of a blob; less in tests
	manifestLimit = 2 * time.Minute  // of a whole request, in which the library may wait after a 429

	errStalled = errors.New("the registry sends nothing any more")
)

// bounded gives f the time that a manifest may take.
func (r *registry) bounded(ctx context.Context, f func(context.Context) error) error {
	limited, cancel := context.WithTimeoutCause(ctx, manifestLimit, errStalled)
	defer cancel()
	watched := r.guard.watch(limited)
	err := refused(watched, f(watched))
	if err != nil && ctx.Err() == nil && limited.Err() != nil {
		return fmt.Errorf("no answer in %v: %w", manifestLimit, context.DeadlineExceeded)
	}
	return err
}

func (b *blobReader) Read(p []byte) (int, error) {
	for {
		n, err := 0, b.err
		if b.err = nil; err == nil {
			n, err = b.read(p)
		}
		b.off += int64(n)
		if err == io.EOF && b.off < b.d.Size {
			err = io.ErrUnexpectedEOF // a body without a length may end anywhere
		}
		if n > 0 || err == nil || err == io.EOF {
			if n > 0 {
				b.tries = 0
			}
			if err != io.EOF {
				b.err, err = err, nil // the library forgets what it said
			}
			return n, err
		}
		if b.tries++; b.tries > retries || !passing(err) || b.ctx.Err() != nil {
			return 0, b.r.explain(err)
		}
		b.body.Close()
		if err := retry(b.ctx, b.open); err != nil {
			b.body = io.NopCloser(strings.NewReader(""))
			return 0, b.r.explain(err)
		}
	}
}

func (b *blobReader) Close() error {
	b.watch.end()
	return b.body.Close()
}

const retries = 4

var firstDelay = 250 * time.Millisecond // doubled each time; less in tests

// retry calls f until it succeeds, fails for good, or has failed too often.
func retry(ctx context.Context, f func() error) error {
	delay := firstDelay
	for n := 0; ; n++ {
		err := f()
		if err == nil || n == retries || !passing(err) {
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

// passing says whether the same request may succeed a little later.
func passing(err error) bool {
	if errors.Is(err, errStalled) {
		return true
	}
	if errors.Is(err, errScheme) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, docker.ErrTooManyRequests) {
		return false // the library has waited for the latter, as long as it was told to
	}
	if errors.As(err, new(docker.ErrUnauthorizedForCredentials)) {
		return false
	}
	if s := status(err); s != 0 {
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

// status is the HTTP status behind an error of the library, 0 where there is none.
func status(err error) int {
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
		// A code it does not know, as Harbor's NOT_FOUND, counts as 500; but the library
		// reads codes of answers below that only.
		if s := one.ErrorCode().Descriptor().HTTPStatusCode; s < 500 {
			return s
		}
		return 400
	}
	// The type of an answer that is not JSON is not exported, only its text.
	if i := strings.LastIndex(err.Error(), "StatusCode: "); i >= 0 {
		s, _, _ := strings.Cut(err.Error()[i+len("StatusCode: "):], ",")
		n, _ := strconv.Atoi(s)
		return n
	}
	return 0
}

// explain adds what the administrator can do, and takes out what nobody else may see: where a
// registry redirects to, the URL lets in whoever has it.
func (r *registry) explain(err error) error {
	if err == nil {
		return nil
	}
	if u := (*url.Error)(nil); errors.As(err, &u) {
		u.URL, _, _ = strings.Cut(u.URL, "?")
	}
	s := status(err)
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
	case s == 404:
		return errkind.Errorf("registry-unknown", "%w", err)
	}
	return err
}
