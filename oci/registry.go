package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/containers/image/v5/docker"
	"github.com/containers/image/v5/docker/reference"
	"github.com/containers/image/v5/pkg/shortnames"
	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

// RegistryOptions says how to talk to a registry. Fields that are not set leave it to the files of the
// containers tools.
type RegistryOptions struct {
	// AuthFile is the path of auth.json; "" is $REGISTRY_AUTH_FILE, or else the user's.
	AuthFile string
	// CertDir has *.crt, *.cert and *.key of the registry; "" is /etc/containers/certs.d.
	CertDir string
	// TLSVerify says whether certificates are checked; nil leaves it to registries.conf.
	TLSVerify *bool
	// User and Password take the place of those in AuthFile if User is not "".
	User, Password string
	// RegistriesConf is the path of registries.conf; "" is $CONTAINERS_REGISTRIES_CONF, or else
	// the system's.
	RegistriesConf string
}

func (o RegistryOptions) system() *types.SystemContext {
	mode := types.ShortNameModeDisabled // all registries are tried in order, and the user is not asked
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

// registry is an image in a registry. Its mirrors are tried when it is opened. From
// then on everything comes from the one that answered.
type registry struct {
	src    types.ImageSource
	digest digest.Digest // the digest in the reference, or ""
	guard  *downgradeGuard
	user   string // the user in the options
}

func init() {
	// The library logs warnings in its own format, and its errors say the same again.
	logrus.SetOutput(io.Discard)
	logrus.SetLevel(logrus.DebugLevel)
	logrus.AddHook(limits)
}

func openRegistry(ctx context.Context, name string, o RegistryOptions) (s store, full string, err error) {
	sys := o.system()
	err = anyOf(sys, name, o, func(r *registry, named reference.Named) error {
		s, full = r, named.String()
		return r.connect(ctx, sys, named, !shortnames.IsShortName(name))
	})
	if err != nil {
		return nil, "", err
	}
	return s, full, nil
}

// inRegistry returns what stands behind docker:// or oras://.
func inRegistry(name string) (string, error) {
	transport, rest := Split(name)
	rest, ok := strings.CutPrefix(rest, "//")
	switch {
	case transport != "docker" && transport != "oras":
		return "", errors.New("is in no registry")
	case !ok || rest == "":
		return "", fmt.Errorf("want %s://NAME", transport)
	}
	return rest, nil
}

// anyOf calls do for each full name that a name may stand for, until it succeeds.
func anyOf(sys *types.SystemContext, name string, o RegistryOptions, do func(*registry, reference.Named) error) error {
	candidates, err := names(sys, name)
	if err != nil {
		return err
	}
	if o.User != "" && len(candidates) > 1 {
		return errkind.Errorf("name-ambiguous", "%q may be an image of %d registries, and a password is only for one of them", name, len(candidates))
	}
	var first error
	for _, named := range candidates {
		r := &registry{user: o.User}
		err := do(r, oneOf(reference.TagNameOnly(named)))
		if err == nil {
			return nil
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
	return first
}

// prepare returns sys without mirrors that are nodes, and sets the guard. Typed says that the user wrote the host of the registry. Free
// removes the file that the returned context needs.
func (r *registry) prepare(ctx context.Context, all *types.SystemContext, named reference.Named, typed bool) (sys *types.SystemContext, free func(), err error) {
	free = func() {}
	err = retry(ctx, func() error {
		sys, free, err = withoutNodes(ctx, all, named, typed)
		return err
	})
	if err == nil {
		r.guard, err = newDowngradeGuard(sys, named)
	}
	return sys, free, err
}

// connect finds a mirror that has the image, or else the registry itself. Typed says that the user wrote the host of
// the registry.
func (r *registry) connect(ctx context.Context, sys *types.SystemContext, named reference.Named, typed bool) error {
	ref, err := docker.NewReference(named)
	if err != nil {
		return err
	}
	sys, free, err := r.prepare(ctx, sys, named, typed)
	defer free()
	if err != nil {
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

func (r *registry) Close() error { return r.src.Close() }
