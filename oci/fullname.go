package oci

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/containers/image/v5/docker/reference"
	"github.com/containers/image/v5/pkg/shortnames"
	"github.com/containers/image/v5/pkg/sysregistriesv2"
	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

// FullName expands name to the full reference that container runtimes look up. The names of all sources go
// through it:
//
//   - A name without a registry is in docker.io, and in library there if it has no slash. The registry
//     index.docker.io is docker.io. The first part of a name is a registry if it has a dot, a port or brackets, or
//     is localhost.
//   - The registry is written in lower case. An IPv6 address stands in brackets, and stays as it was written.
//   - A name without tag and digest gets the tag latest. A tag beside a digest is left out, because the digest says
//     more.
//
// Image.LocalName names an image that has a tag and no name, as in an OCI layout.
//
// The full name of a full name is the same name. FullName does not read registries.conf. It returns an error if name
// is no name of an image. The grammar is that of https://pkg.go.dev/github.com/distribution/reference.
func FullName(name string) (string, error) {
	named, err := parseName(lowerHost(name))
	if err != nil {
		return "", err
	}
	return named.String(), nil
}

// parseName is FullName for a name whose host is in lower case.
func parseName(name string) (fmt.Stringer, error) {
	if !strings.HasPrefix(name, "[") {
		named, err := reference.ParseNormalizedNamed(name)
		if err != nil {
			return nil, err
		}
		return oneOf(reference.TagNameOnly(named)), nil
	}
	// The library does not know IPv6 addresses, but containerd does.
	host, rest, _ := strings.Cut(name, "/")
	address, port, ok := strings.Cut(strings.TrimPrefix(host, "["), "]")
	if a, err := netip.ParseAddr(address); !ok || err != nil || !a.Is6() || a.Zone() != "" {
		return nil, fmt.Errorf("%q is no IPv6 address", address)
	}
	if number, ok := strings.CutPrefix(port, ":"); ok || port != "" {
		if _, err := strconv.ParseUint(number, 10, 16); err != nil {
			return nil, fmt.Errorf("%q is no port", number)
		}
	}
	const stand = "host.invalid/"
	named, err := reference.ParseNormalizedNamed(stand + rest)
	if err != nil {
		return nil, err
	}
	full := host + "/" + strings.TrimPrefix(oneOf(reference.TagNameOnly(named)).String(), stand)
	return stringName(full), nil
}

// stringName is a name that is printed as it is.
type stringName string

func (s stringName) String() string { return string(s) }

// lowerHost returns the name with its registry in lower case, if it has one.
func lowerHost(name string) string {
	host, rest, ok := strings.Cut(name, "/")
	if lower := strings.ToLower(host); ok && (strings.ContainsAny(host, ".:") || lower == "localhost") {
		return lower + "/" + rest
	}
	return name
}

// oneOf removes the tag from a name that also has a digest, because the digest says more.
func oneOf(named reference.Named) reference.Named {
	if d, ok := named.(reference.Digested); ok {
		if both, err := reference.WithDigest(reference.TrimNamed(named), d.Digest()); err == nil {
			return both
		}
	}
	return named
}

// names returns the full names that a name may stand for, the most likely first. A short
// name without an entry in registries.conf is in docker.io, as for skopeo.
func names(sys *types.SystemContext, name string) ([]reference.Named, error) {
	name = lowerHost(name)
	if strings.HasPrefix(name, "[") {
		return nil, errkind.Errorf("registry-address", "%q: the library that asks registries knows no IPv6 addresses", name)
	}
	plain, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return nil, fmt.Errorf("%q is no name of an image: %w", name, err)
	}
	if !shortnames.IsShortName(name) {
		return []reference.Named{plain}, nil
	}
	alias, _, err := sysregistriesv2.ResolveShortNameAlias(sys, reference.FamiliarName(plain))
	if err != nil {
		return nil, fmt.Errorf("registries.conf: %w", err)
	}
	search, err := sysregistriesv2.UnqualifiedSearchRegistries(sys)
	if err != nil {
		return nil, fmt.Errorf("registries.conf: %w", err)
	}
	if alias == nil && len(search) == 0 {
		return []reference.Named{plain}, nil
	}
	resolved, err := shortnames.Resolve(sys, name)
	if err != nil {
		return nil, err
	}
	var list []reference.Named
	for _, c := range resolved.PullCandidates {
		list = append(list, c.Value)
	}
	return list, nil
}

// hasPath reports whether the name that a layout has for an image is a full name, and not only a tag.
func hasPath(name string) bool { return strings.ContainsAny(name, "/:@") }

// setNames notes the name that the source has for the image, and the name under which it is to be kept, which is asked
// if that is not "".
func (i *Image) setNames(own, asked string) (err error) {
	if own != "" {
		if i.name, err = FullName(own); err != nil && asked == "" {
			return errkind.Errorf("name-unusable", "the name that it comes with, %q, is none that a runtime could ask for: %w", own, err)
		}
	}
	if i.ref = i.name; asked != "" {
		i.ref, err = FullName(asked)
		return err
	}
	return nil
}

// checkName compares the root of the image with the digest in the name under which it is to be kept, if that has one.
func (i *Image) checkName(raw []byte) error {
	_, d, ok := strings.Cut(i.ref, "@")
	if !ok {
		return nil
	}
	if err := checkDigest(raw, digest.Digest(d)); err != nil {
		return errkind.Errorf("name-digest", "the name %s is of another image: %w", i.ref, err)
	}
	return nil
}

// LocalName returns a name for an image that has none. Repository is made of the file or directory on this machine, and
// ref is the REF behind its path: a tag, or the digest by which the image was found. If ref is "", the tag is
// the only one that the layout has for the image, if it is a valid tag, or else latest.
func (i *Image) LocalName(repository, ref string) (string, error) {
	switch d := digest.Digest(ref); {
	case ref == "":
		if l, ok := i.store.(*layout); ok && l.tag != "" {
			if full, err := FullName(repository + ":" + l.tag); err == nil {
				return full, nil
			}
		}
		ref = "latest"
	case d.Validate() == nil:
		return FullName(repository + "@" + i.root.Digest.String())
	}
	full, err := FullName(repository + ":" + ref)
	if err == nil && strings.ContainsAny(ref, "/:@") {
		err = errors.New("it is no tag")
	}
	if err != nil {
		return "", errkind.Errorf("name-unusable", "%q is the image's only name, and none that a runtime could ask for: %w", ref, err)
	}
	return full, nil
}
