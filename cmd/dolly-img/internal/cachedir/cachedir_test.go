package cachedir

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// A user's own cache is looked at where there is something in it that he may read, else the node's.
func TestOwnCacheOrNodes(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can look as another user")
	}
	const someone = 61234                               // no user of this machine
	dir, err := os.MkdirTemp("", "dolly-img-cachedir-") // t.TempDir is for its owner only
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := func(name string) string { return filepath.Join(dir, name) }
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(os.Chmod(dir, 0o755))
	for _, dir := range []string{"node", "empty", "mine", "mine/blobs", "secret", "secret/own"} {
		check(os.Mkdir(path(dir), 0o755))
	}
	check(os.Chmod(path("secret"), 0o700))
	homeless := errors.New("no home")
	// As somebody else, for this thread only, which ends with its goroutine.
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if _, err := unix.SetfsuidRetUid(someone); err != nil {
			t.Error(err)
			return
		}
		for _, c := range []struct {
			own  string
			err  error
			node string
			want string
		}{
			{"mine", nil, "node", "mine"},
			{"gone", nil, "node", "node"},
			{"empty", nil, "node", "node"},
			{"secret/own", nil, "node", "node"},
			{"", homeless, "node", "node"},
			{"secret/own", nil, "gone", "secret/own"},
			{"", homeless, "gone", ""},
		} {
			got, err := orOf(path(c.own), c.err, path(c.node))
			if c.want != "" && (got != path(c.want) || err != nil) || c.want == "" && !errors.Is(err, homeless) {
				t.Errorf("%q (%v) or %q: %s, %v", c.own, c.err, c.node, got, err)
			}
		}
	}()
	<-done
}
