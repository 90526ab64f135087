package image

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/cachedir"
	"github.com/dolly-img/dolly-img/oci"
	"github.com/dolly-img/dolly-img/ring/errkind"
)

// Cached returns the reference in the cache that arg means. Arg is such a reference, or what push takes: a name with
// docker://, a short name without the registry and the tag (nginx, app:v2), or the name of an image file. If
// several images have the short name, the error names them.
func Cached(c *cache.Cache, arg string) (string, error) {
	names, err := c.Names()
	if err != nil {
		return "", err
	}
	switch found := Meant(names, arg); {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return "", errkind.About("cache-ambiguous", strings.Join(found, ", "),
			"cache %s: %q is the short name of %d images", c.Dir(), arg, len(found))
	}
	bare, _, _ := strings.Cut(path.Base(arg), ":")
	near := slices.DeleteFunc(names, func(name string) bool { return !strings.HasPrefix(path.Base(name), bare+":") })
	kind, about := elsewhere(c.Dir(), near)
	return "", errkind.About(kind, about, "cache %s: %q: %w", c.Dir(), arg, cache.ErrNotFound)
}

// Meant returns those of the names in a cache that arg may mean, by the rules of Cached. Only a short name means more than one.
func Meant(names []string, arg string) []string {
	ref := withoutTransport(arg)
	if slices.Contains(names, ref) {
		return []string{ref}
	}
	if full, ok := Full(arg); ok && slices.Contains(names, full) {
		return []string{full}
	}
	if !strings.ContainsAny(path.Base(ref), ":@") {
		ref += ":latest"
	}
	var found []string
	if !OfRegistry(arg) { // an argument with docker:// names its registry, so no other one can be meant
		found = endingIn(names, ref)
	}
	if local := cache.LocalRef(arg); len(found) == 0 && slices.Contains(names, local) {
		found = []string{local} // arg is the name of the file that was pushed
	}
	return found
}

// Full returns the name that an image of a registry has in a cache. It is not ok if arg names no registry.
func Full(arg string) (name string, ok bool) {
	ref := withoutTransport(arg)
	full, err := oci.FullName(ref)
	return full, err == nil && (OfRegistry(arg) || hasRegistry(ref))
}

// withoutTransport returns what stands behind docker:// or oras://.
func withoutTransport(arg string) string {
	if OfRegistry(arg) {
		_, arg, _ = strings.Cut(arg, "://")
	}
	return arg
}

// endingIn returns the names that are ref, or end in a slash and ref.
func endingIn(names []string, ref string) []string {
	var found []string
	for _, name := range names {
		if name == ref || strings.HasSuffix(name, "/"+ref) {
			found = append(found, name)
		}
	}
	return found
}

// hasRegistry reports whether a name begins with a host, by the rule of container tools.
func hasRegistry(ref string) bool {
	host, _, ok := strings.Cut(ref, "/")
	return ok && (strings.ContainsAny(host, ".:") || strings.EqualFold(host, "localhost"))
}

// elsewhere returns the kind of error for an image that is not in the cache in dir, and what the error is about. Near
// has the images of the same name with another tag or registry.
func elsewhere(dir string, near []string) (kind errkind.Kind, about string) {
	if len(near) > 0 {
		return errkind.Kind("cache-near"), strings.Join(near[:min(len(near), 5)], ", ")
	}
	if _, err := os.Stat(cachedir.System); err == nil && dir != cachedir.System {
		return errkind.Kind("cache-of-daemon"), cachedir.System
	}
	return errkind.Kind("cache-unknown"), ""
}

// FindCached returns the cache that has the image which arg means, and its reference there. The cache is the user's own.
// If that does not have the image and the node's cache does, it is the node's, and note says so.
func FindCached(flag, arg string) (c *cache.Cache, ref, note string, err error) {
	if c, err = cachedir.Open(flag); err != nil {
		return nil, "", "", err
	}
	ref, err = Cached(c, arg)
	other := cachedir.Other(flag, c.Dir())
	if !errors.Is(err, cache.ErrNotFound) || other == "" {
		return c, ref, "", err
	}
	node, openErr := cachedir.Open(other)
	if openErr != nil {
		return c, "", "", err
	}
	if ref, openErr = Cached(node, arg); openErr != nil {
		return c, "", "", err
	}
	return node, ref, fmt.Sprintf("%s is not in your own cache, %s; this is the one in the node's, %s", arg, c.Dir(), other), nil
}
