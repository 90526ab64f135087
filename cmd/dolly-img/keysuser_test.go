package main

import (
	"os"
	"strings"
	"testing"
)

// TestKeysOfAnotherUser: keys that a user may not look at are not said to be missing.
func TestKeysOfAnotherUser(t *testing.T) {
	l := newLab(t)
	l.check(os.Chmod(l.path("keys"), 0o700))
	for _, args := range [][]string{{"keys", "show"}, {"push", l.path("a.sif"), "--nodes", "127.0.0.1:9"}} {
		if args[0] == "push" {
			l.check(os.WriteFile(l.path("a.sif"), nil, 0o644))
		}
		out, code := l.run(someone, args...)
		if code != 1 || !strings.Contains(out, "no keys that this user may read in "+l.path("keys")+" (permission denied)") {
			t.Errorf("%q: status %d, %s", args, code, out)
		}
		if !strings.Contains(out, "\nhint: run it as root or as the owner of that directory") || strings.Contains(out, "keys init") {
			t.Errorf("%q: the hint is wrong: %s", args, out)
		}
	}
}
