package oci

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"github.com/containers/image/v5/docker"
	"github.com/containers/image/v5/docker/reference"
	"github.com/containers/image/v5/pkg/shortnames"
	"github.com/containers/image/v5/pkg/sysregistriesv2"
	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"
)

// Head asks a registry which digest the image NAME in docker://NAME or oras://NAME has now, and reads nothing of it. Full is the full name, as Image.Name
// has it. It asks where Open would ask: mirrors first, and each registry that a short name may mean. Only a registry that gives no digest without
// the manifest is asked for that.
func Head(ctx context.Context, name string, o RegistryOptions) (full string, d digest.Digest, err error) {
	err = ask(ctx, name, o, func(r *registry, sys *types.SystemContext, named reference.Named, typed bool) error {
		full = named.String()
		return r.endpoints(ctx, sys, named, typed, func(ctx context.Context, sys *types.SystemContext, ref types.ImageReference) error {
			d, err = docker.GetDigest(ctx, sys, ref)
			if err == nil || Status(err) != http.StatusMethodNotAllowed && !isNoDigest(err) {
				return err
			}
			src, err := ref.NewImageSource(ctx, sys)
			if err != nil {
				return err
			}
			defer src.Close()
			raw, _, err := src.GetManifest(ctx, nil)
			d = digest.FromBytes(raw)
			return err
		})
	})
	return full, d, err
}

// isNoDigest reports whether a registry has answered, and its answer had no digest.
func isNoDigest(err error) bool {
	return slices.Contains([]error{digest.ErrDigestInvalidFormat, digest.ErrDigestInvalidLength, digest.ErrDigestUnsupported}, err)
}

// Tags lists the tags of the repository NAME in docker://NAME or oras://NAME. Repository is its full name, without a tag. It asks where Head does.
func Tags(ctx context.Context, name string, o RegistryOptions) (repository string, tags []string, err error) {
	err = ask(ctx, name, o, func(r *registry, sys *types.SystemContext, named reference.Named, typed bool) error {
		repository = reference.TrimNamed(named).String()
		return r.endpoints(ctx, sys, named, typed, func(ctx context.Context, sys *types.SystemContext, ref types.ImageReference) error {
			tags, err = docker.GetRepositoryTags(ctx, sys, ref)
			return err
		})
	})
	return repository, tags, err
}

// ask is anyOf for an image with its transport.
func ask(ctx context.Context, name string, o RegistryOptions, do func(*registry, *types.SystemContext, reference.Named, bool) error) error {
	rest, err := inRegistry(name)
	if err == nil {
		sys := o.system()
		err = anyOf(sys, rest, o, func(r *registry, named reference.Named) error {
			return do(r, sys, named, !shortnames.IsShortName(rest))
		})
	}
	if err != nil {
		return fmt.Errorf("image %s: %w", name, err)
	}
	return nil
}

// endpoints calls do for each place that has the image by registries.conf, until one succeeds, and returns the error of the last, which
// is the registry itself. The library does the same when it opens an image, and for nothing else.
func (r *registry) endpoints(ctx context.Context, sys *types.SystemContext, named reference.Named, typed bool, do func(context.Context, *types.SystemContext, types.ImageReference) error) error {
	sys, free, err := r.prepare(ctx, sys, named, typed)
	defer free()
	if err != nil {
		return err
	}
	conf, err := sysregistriesv2.FindRegistry(sys, named.Name())
	if err != nil {
		return fmt.Errorf("registries.conf: %w", err)
	}
	sources := []sysregistriesv2.PullSource{{Reference: named}}
	if conf != nil && !conf.Blocked { // if it is blocked, the library says so
		if sources, err = conf.PullSourcesFromReference(named); err != nil {
			return fmt.Errorf("registries.conf: %w", err)
		}
	}
	for _, source := range sources {
		ref, refErr := docker.NewReference(source.Reference)
		if refErr != nil {
			return refErr
		}
		at := *sys
		if at.DockerInsecureSkipTLSVerify == types.OptionalBoolUndefined && conf != nil {
			at.DockerInsecureSkipTLSVerify = types.NewOptionalBool(source.Endpoint.Insecure)
		}
		if reference.Domain(source.Reference) != reference.Domain(named) {
			at.DockerAuthConfig = nil // it is for the registry, not for its mirrors
		}
		err = retry(ctx, func() error {
			return r.bounded(ctx, func(ctx context.Context) error { return do(ctx, &at, ref) })
		})
		if err == nil || ctx.Err() != nil {
			return err
		}
	}
	return err
}
