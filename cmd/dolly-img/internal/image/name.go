package image

import (
	"cmp"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
	"github.com/dolly-img/dolly-img/oci"
	"github.com/dolly-img/dolly-img/ring/errkind"
)

// OfRegistry reports whether IMAGE is in a registry.
func OfRegistry(image string) bool {
	t, _ := oci.Split(image)
	return t == "docker" || t == "oras"
}

// CheckName refuses a name with credentials, as URLs have them, because messages and the report would repeat
// them. If no digest follows the @ in a name, a host does, and credentials stand before it.
func CheckName(image string) error {
	_, name, ok := strings.Cut(image, "://")
	if !ok && OfRegistry(image) { // the user forgot the slashes
		_, name = oci.Split(image)
	}
	if _, behind, ok := strings.Cut(name, "@"); ok {
		algorithm, _, _ := strings.Cut(behind, ":")
		if !digest.Algorithm(algorithm).Available() {
			return errkind.Errorf("credentials-in-name", "credentials in the image's name")
		}
	}
	return nil
}

// OutputName returns the name that the output of IMAGE gets in a directory. For an image in a registry that is the
// name which apptainer gives it; it has no colon, because tools take what follows a colon for a REF. For any other
// image it is the name of its file or directory.
func OutputName(image, format string) string {
	transport, name := oci.Split(image)
	if OfRegistry(image) {
		name, digest, _ := strings.Cut(path.Base(name), "@")
		name, tag, _ := strings.Cut(name, ":")
		if algorithm, hex, ok := strings.Cut(digest, ":"); ok {
			tag = algorithm + "-" + hex[:min(len(hex), 12)]
		}
		return name + "_" + cmp.Or(tag, "latest") + map[string]string{"": ".sif", meta.FormatArchive: ".tar"}[format]
	}
	if transport != "" {
		name, _, _ = strings.Cut(name, ":") // the REF
	}
	if abs, err := filepath.Abs(name); err == nil { // "." has a name
		name = abs
	}
	if info, err := os.Stat(name); err == nil && info.IsDir() && format == meta.FormatArchive {
		name += ".tar"
	}
	return filepath.Base(name)
}
