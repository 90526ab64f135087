package oci

import (
	"context"
	"fmt"
	"strings"
)

// Transports lists what the name of an image may begin with, before its first colon.
var Transports = []string{"docker", "oras", "oci", "oci-archive", "docker-archive"}

// Split splits the name of an image into its transport and the rest. If the name begins with none of
// Transports, its transport is "". (What IMAGE means on a command line, package
// cmd/dolly-img/internal/image decides.)
func Split(name string) (transport, rest string) {
	for _, t := range Transports {
		if rest, ok := strings.CutPrefix(name, t+":"); ok {
			return t, rest
		}
	}
	return "", name
}

func openStore(ctx context.Context, name string, o Options) (s store, ref string, err error) {
	transport, rest := Split(name)
	switch transport {
	case "docker", "oras":
		if rest, err = inRegistry(name); err != nil {
			return nil, "", err
		}
		return openRegistry(ctx, rest, o.Registry)
	case "oci":
		return openLayout(ctx, rest)
	case "oci-archive":
		return openOCIArchive(ctx, rest)
	case "docker-archive":
		return openDockerArchive(ctx, rest)
	}
	return nil, "", fmt.Errorf("begins with none of %s", strings.Join(Transports, ", "))
}

// splitPath splits FILE[:REF] at the first colon. The REF may be the name of an image, which has
// more colons.
func splitPath(s string) (path, ref string, err error) {
	if i := strings.IndexByte(s, ':'); i >= 0 {
		s, ref = s[:i], s[i+1:]
		if ref == "" {
			return "", "", fmt.Errorf("nothing follows the colon")
		}
	}
	if s == "" {
		return "", "", fmt.Errorf("no path")
	}
	return s, ref, nil
}
