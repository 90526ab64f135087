package oci

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/containers/image/v5/docker"
	"github.com/containers/image/v5/docker/reference"
	"github.com/containers/image/v5/pkg/shortnames"
	"github.com/containers/image/v5/types"
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

func (r *registry) Close() error { return r.src.Close() }
