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

// ofRegistry says whether IMAGE is in a registry.
func OfRegistry(image string) bool {
	t, _ := oci.Split(image)
	return t == "docker" || t == "oras"
}

// checkName refuses credentials in the name of an image, as URLs have them: what is said of the
// image, and its report, would repeat them. An @ in a name has a digest behind it, else a host.
func CheckName(image string) error {
	_, name, ok := strings.Cut(image, "://")
	if !ok && OfRegistry(image) { // the slashes were forgotten
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

// outputName is the name of IMAGE's output in a directory: of an image in a registry what
// apptainer calls it, of another one that of its file or directory. A colon cannot be in the
// first, as tools take what follows for a REF.
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
