package image

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
)

// Names with credentials are told from names with a digest.
func TestCheckName(t *testing.T) {
	for _, name := range []string{
		"docker://bob:secret@host/app:v1", "docker://bob@host:5000/app", "oras://bob:sec/ret@host/app", "docker://bob:secret@host",
		"docker://bob:sec@ret@host/app", "https://bob:secret@host/app",
	} {
		err := CheckName(name)
		if err == nil || strings.Contains(err.Error(), "bob") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{
		"app.sif", "a@b.sif", "oci:/data/a@b:v1", "docker://app", "docker://host:5000/app:v1", "docker://app@sha256:" + strings.Repeat("0", 64),
		"oras://host:5000/lab/app:v1@sha256:" + strings.Repeat("0", 64), "docker://app@sha256:00",
	} {
		if err := CheckName(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What an image is called below a directory.
func TestOutputName(t *testing.T) {
	dir := t.TempDir()
	here := filepath.Base(dir)
	t.Chdir(dir)
	for _, c := range []struct{ image, format, want string }{
		{"docker://app", "", "app_latest.sif"},
		{"docker://host:5000/lab/app:v1", "", "app_v1.sif"},
		{"oras://host:5000/lab/app:v1", meta.FormatArchive, "app_v1.tar"},
		{"docker://host:5000/lab/app:v1", meta.FormatLayout, "app_v1"},
		{"docker://lab/app@sha256:0123456789abcdef", "", "app_sha256-0123456789ab.sif"},
		{"docker://app:v1@sha256:0123456789abcdef", meta.FormatLayout, "app_sha256-0123456789ab"},
		{"docker://app@sha256:01", meta.FormatLayout, "app_sha256-01"},
		{"images/app.sif", "", "app.sif"},
		{"a:b.sif", "", "a:b.sif"},
		{"app.tar.gz", meta.FormatArchive, "app.tar.gz"},
		{"docker-archive:images/app.tar:lab/app:v1", meta.FormatArchive, "app.tar"},
		{"oci-archive:app.tar:v1", meta.FormatLayout, "app.tar"},
		{dir, meta.FormatArchive, here + ".tar"},
		{"oci:" + dir + "/:lab/app:v1", meta.FormatArchive, here + ".tar"},
		{"oci:" + dir + ":v1", meta.FormatLayout, here},
		{".", "", here},
	} {
		if got := OutputName(c.image, c.format); got != c.want {
			t.Errorf("%s as %q: %s, want %s", c.image, c.format, got, c.want)
		}
	}
}
