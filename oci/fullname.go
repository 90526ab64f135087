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

// FullName expands name to the full reference that container runtimes look up. Names of every source go
// through it:
//
//   - What has no registry is of docker.io, and of library there where it has no slash; index.docker.io
//     is docker.io. A registry is told by a dot, a port or brackets in it, or it is localhost.
//   - A registry's name is in lower case. An IPv6 address stands in brackets, as it was written.
//   - Without tag and digest the tag is latest. Beside a digest the tag is left out: the digest says more.
//
// An image that has a tag and no name, as in an OCI layout, is called by Image.LocalName.
//
// The full name of a full name is itself. No registries.conf is asked. The error says why name is none.
//
// https://pkg.go.dev/github.com/distribution/reference has the grammar.
func FullName(name string) (string, error) {
	named, err := parseName(lowerHost(name))
	if err != nil {
		return "", err
	}
	return named.String(), nil
}

// parseName is FullName of a name whose host is in lower case.
func parseName(name string) (fmt.Stringer, error) {
	if !strings.HasPrefix(name, "[") {
		named, err := reference.ParseNormalizedNamed(name)
		if err != nil {
			return nil, err
		}
		return oneOf(reference.TagNameOnly(named)), nil
	}
	// The library knows no IPv6 addresses, but containerd does.
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

// stringName is a name as it stands.
type stringName string

func (s stringName) String() string { return string(s) }

// lowerHost writes the registry of a name in lower case, if there is one.
func lowerHost(name string) string {
	host, rest, ok := strings.Cut(name, "/")
	if lower := strings.ToLower(host); ok && (strings.ContainsAny(host, ".:") || lower == "localhost") {
		return lower + "/" + rest
	}
	return name
}

// oneOf leaves the tag of a name that has a digest, too, out: the digest says more.
func oneOf(named reference.Named) reference.Named {
	if d, ok := named.(reference.Digested); ok {
		if both, err := reference.WithDigest(reference.TrimNamed(named), d.Digest()); err == nil {
			return both
		}
	}
	return named
}

// names are the full names that a name may stand for, most likely first. A short
// one without an entry in registries.conf is one of docker.io, as for skopeo.
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

// hasPath says whether what a layout calls an image is a name, and not only a tag.
func hasPath(name string) bool { return strings.ContainsAny(name, "/:@") }

// setNames notes how the source calls the image, and what it is to be kept as: asked, where that is not "".
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

// checkName compares the digest in the name that the image is to be kept as, if it has one, with what was
// found under it.
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

// LocalName is the name of an image that has none: that of a file or directory on this machine, as
// repository, and REF, what was said behind its path. That may be a tag, or the digest of what the image
// was found by. Where it is "" the tag is the only one that a layout has for the image, if it can be one,
// else latest.
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
