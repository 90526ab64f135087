package image

import (
	"os"
	"strings"
	"testing"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/oci"
)

// A name in full is itself in full, and one that a cache takes; so is that of a file.
func FuzzNames(f *testing.F) {
	entries, err := os.ReadDir("testdata/fuzz/" + f.Name())
	if err != nil || len(entries) == 0 {
		f.Fatalf("no corpus: %v", err)
	}
	f.Fuzz(func(t *testing.T, name string) {
		local := cache.LocalRef(name)
		if full, err := oci.FullName(local); full != local {
			t.Errorf("file %q is %q, %q in full, %v", name, local, full, err)
		}
		for _, name := range []string{name, local} {
			full, err := oci.FullName(name)
			if err != nil {
				continue
			}
			if again, err := oci.FullName(full); again != full {
				t.Errorf("%q is %q, and that is %q, %v", name, full, again, err)
			}
			if err := cache.CheckRef(full); err != nil {
				t.Errorf("%q is %q: %v", name, full, err)
			}
			host, rest, ok := strings.Cut(full, "/")
			if !ok || host != strings.ToLower(host) || !strings.ContainsAny(rest, ":@") || strings.Contains(rest, "@") && strings.Count(rest, ":") != 1 {
				t.Errorf("%q is %q", name, full)
			}
		}
	})
}
