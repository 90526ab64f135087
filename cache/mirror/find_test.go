package mirror

import (
	"testing"

	"github.com/dolly-img/dolly-img/cache"
)

// An image that somebody wants, and whose name has moved or is removed, is served by digest in the repository for which it is
// wanted. It is not served in another one, nor once nobody wants it.
func TestWantedIsServed(t *testing.T) {
	for name, gone := range map[string]func(c *cache.Cache) error{
		"moved":   func(c *cache.Cache) error { putApp(t, c, "reg.example:5000/app:v1", "b"); return nil },
		"removed": func(c *cache.Cache) error { _, err := c.Remove(t.Context(), "reg.example:5000/app:v1"); return err },
	} {
		t.Run(name, func(t *testing.T) {
			c, err := cache.Open(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			layer, root := putApp(t, c, "reg.example:5000/app:v1", "a")
			putApp(t, c, "reg.example:5000/other:v1", "c")
			if err := c.SetWishes(t.Context(), "head1", []cache.Wish{{Name: "reg.example:5000/app:v1", Digest: root.Digest}}); err != nil {
				t.Fatal(err)
			}
			if err := gone(c); err != nil {
				t.Fatal(err)
			}
			is := func(path string, want int) {
				t.Helper()
				// A mirror of its own holds nothing that was served before.
				if code := get(New(c, nil, nil), path); code != want {
					t.Errorf("%s: %d, want %d", path, code, want)
				}
			}
			manifest, blob := "/manifests/"+root.Digest.String(), "/blobs/"+layer.Digest.String()
			for _, repo := range []string{"/v2/app", "/v2/reg.example_5000/app"} {
				ns := map[bool]string{true: "?ns=reg.example:5000"}[repo == "/v2/app"]
				is(repo+manifest+ns, 200)
				is(repo+blob+ns, 200)
			}
			is("/v2/other"+manifest+"?ns=reg.example:5000", 404)
			is("/v2/nothing"+blob+"?ns=reg.example:5000", 404)
			is("/v2/app"+manifest+"?ns=docker.io", 404)
			if err := c.SetWishes(t.Context(), "head1", nil); err != nil {
				t.Fatal(err)
			}
			is("/v2/app"+manifest+"?ns=reg.example:5000", 404)
			is("/v2/app"+blob+"?ns=reg.example:5000", 404)
		})
	}
}
