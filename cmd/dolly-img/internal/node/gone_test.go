package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dolly-img/dolly-img/cache"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/identity"
)

// askName asks a node what a name leads to, and returns that, or why the node does not tell.
func askName(t *testing.T, config func(identity.Role) ring.Config, name string) (ring.HeldImage, string) {
	t.Helper()
	replies, err := ring.Ask(t.Context(), config(identity.Viewer), ring.Question{Images: []ring.Image{{Name: name}}})
	if err != nil {
		t.Fatal(err)
	}
	if replies[0].State != "" {
		return ring.HeldImage{}, replies[0].Cause.String()
	}
	return replies[0].Images[0], ""
}

// A daemon whose cache is removed makes it anew for the next question, wish or transfer.
func TestCacheRemoved(t *testing.T) {
	s, keys, config := stockServer(t)
	warmer, err := identity.Load(keys, identity.Warmer)
	if err != nil {
		t.Fatal(err)
	}
	const name = "localhost/a:latest"
	again := map[string]func(d ring.Wish){
		"a question": func(ring.Wish) {
			if h, why := askName(t, config, name); why != "" || h.State != ring.HoldsNone || h.Named != "" {
				t.Errorf("%+v, %s", h, why)
			}
		},
		"a wish": func(w ring.Wish) {
			if r, err := ring.Want(t.Context(), config(identity.Warmer), warmer.Name, []ring.Wish{w}); err != nil || r[0].State != "" {
				t.Errorf("%+v, %v", r, err)
			}
		},
		"a transfer": func(ring.Wish) {},
	}
	for what, does := range again {
		d, err := moveName(t, s, name, ring.RoleWarmer, warmer.Name, what)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(s.cache.Dir()); err != nil {
			t.Fatal(err)
		}
		does(ring.Wish{Name: name, Digest: d})
		if _, err := moveName(t, s, name, ring.RoleWarmer, warmer.Name, what); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if h, why := askName(t, config, name); why != "" || h.State != ring.HoldsAll || h.Named != d {
			t.Errorf("%s: %+v, %s", what, h, why)
		}
		if r, err := s.cache.List(); err != nil || len(r) != 1 || r[0].Err != nil {
			t.Errorf("%s: %+v, %v", what, r, err)
		}
	}
}

// Below the mount point of a file system that is not mounted any more nothing is written, whether that is the cache or a directory above it. The
// daemon says why, and goes on when it is mounted again.
func TestCacheUnmounted(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root")
	}
	for what, below := range map[string]string{"the cache": "", "above the cache": "a/cache"} {
		t.Run(what, func(t *testing.T) {
			at := t.TempDir()
			mount := func() {
				t.Helper()
				if err := unix.Mount("none", at, "tmpfs", 0, "size=8M"); err != nil {
					t.Fatal(err)
				}
			}
			unmount := func() error { return unix.Unmount(at, unix.MNT_DETACH) }
			mount()
			t.Cleanup(func() { _ = unmount() })
			s, _, config := stockServerAt(t, filepath.Join(at, below))
			const name = "localhost/a:latest"
			if _, err := moveName(t, s, name, ring.RoleSender, "boss", "text"); err != nil {
				t.Fatal(err)
			}
			if err := unmount(); err != nil {
				t.Fatal(err)
			}
			// Also a cache of an earlier time below the mount point is not the one of this daemon.
			for _, old := range []string{"", "oci-layout", "index.json"} {
				dir := filepath.Join(at, below)
				if old != "" {
					if err := os.MkdirAll(dir, 0o755); err != nil {
						t.Fatal(err)
					}
					if err := os.WriteFile(filepath.Join(dir, old), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				if _, why := askName(t, config, name); !strings.Contains(why, "no file system is mounted at "+at+" any more") {
					t.Errorf("a question: %q", why)
				}
				r, err := ring.Want(t.Context(), config(identity.Sender), "head", nil)
				if err != nil || !strings.Contains(r[0].Cause.String(), "no file system is mounted") {
					t.Errorf("a wish: %+v, %v", r, err)
				}
				tr := s.cache.Transfer(name, cache.TransferOptions{})
				if _, _, err := tr.Offer(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "no file system is mounted") {
					t.Errorf("a transfer: %v", err)
				}
				tr.Close()
				if _, err := os.Stat(filepath.Join(dir, "blobs")); err == nil {
					t.Error("something was written below the mount point")
				}
			}
			mount() // with nothing in it
			if h, why := askName(t, config, name); why != "" || h.Named != "" {
				t.Errorf("%+v, %s", h, why)
			}
			d, err := moveName(t, s, name, ring.RoleSender, "boss", "text")
			if err != nil {
				t.Fatal(err)
			}
			if h, why := askName(t, config, name); why != "" || h.State != ring.HoldsAll || h.Named != d {
				t.Errorf("%+v, %s", h, why)
			}
		})
	}
}
