package mirror

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dolly-img/dolly-img/cache"
)

// How what is requested is found in the cache.

// repository is what the cache has of a repository.
func (m *mirror) repository(name string) ([]cache.Reference, error) {
	all, err := m.store.References()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(r cache.Reference) bool { return !goesBy(r.Repository, name) }), nil
}

// goesBy reports whether a request for name is one for the repository.
func goesBy(repository, name string) bool { return repository == name || PathName(repository) == name }

// PathName returns a repository, with its registry, as part of a path. A path cannot have the colon in front of a port,
// which is written as an underscore, nor an IPv6 address in brackets, which is written ip6-fd00-0000-…-0001.
func PathName(repository string) string {
	if address, rest, ok := strings.Cut(strings.TrimPrefix(repository, "["), "]"); ok {
		if a, err := netip.ParseAddr(address); err == nil {
			repository = "ip6-" + strings.ReplaceAll(a.StringExpanded(), ":", "-") + rest
		}
	}
	return strings.Replace(repository, ":", "_", 1)
}

func roots(refs []cache.Reference) []v1.Descriptor {
	list := make([]v1.Descriptor, len(refs))
	for i, r := range refs {
		list[i] = r.Root
	}
	return list
}

// byDigest reports whether a manifest or a blob is requested, and by its digest.
func (r request) byDigest() bool {
	return (r.kind == "manifests" || r.kind == "blobs") && digest.Digest(r.ref).Validate() == nil
}

// find looks for a manifest or a blob below what is named, and then below what somebody wants for a name of the repository.
func (m *mirror) find(repo string, named []v1.Descriptor, d digest.Digest) (v1.Descriptor, error) {
	found, err := m.store.Find(named, d)
	if err == nil {
		return found, nil
	}
	wanted, bad := m.store.Wanted(func(of string) bool { return goesBy(of, repo) })
	if bad != nil {
		m.log.Warn("mirror: what is wanted is not known", "error", bad)
		return found, err
	}
	return m.store.Find(wanted, d)
}
