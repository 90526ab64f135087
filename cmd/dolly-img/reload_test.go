package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/launch"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/identity"
	"github.com/dolly-img/dolly-img/sif"
)

// TestReloadRunning: a transfer does not notice that its daemon reads a broken policy, then one under
// which it would not have begun.
func TestReloadRunning(t *testing.T) {
	p := startPushing(t)
	reload := func(policy, line string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(p.dir, "keys", "policy.toml"), []byte(policy), 0o600); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		wait := p.daemon.Await(regexp.MustCompile(line))
		p.daemon.Signal(syscall.SIGHUP)
		if err := wait(ctx); err != nil {
			t.Fatal(err)
		}
	}
	reload("[limits]\nrate = 1\nrates = 1\n", `msg="reload refused, .*line 3: unknown key`)
	reload("[limits]\nrate = 1\n", `msg="reloaded; running transfers keep what they began with" running=1`)
	if status, report := p.end(t); status != ring.ExitAll || report.Nodes[0].State != ring.Committed {
		t.Errorf("status %d, report %+v", status, report)
	}
	if err := p.daemon.Stop(time.Minute); err != nil {
		t.Errorf("daemon: %v: %s", err, p.daemon.Log())
	}
}

// endingKeys are keys of which one role's certificate, or none, has ended, and the others end in ten days.
func endingKeys(t *testing.T, ended string) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "keys")
	now := time.Now()
	if err := identity.Init(dir, identity.InitOptions{Cluster: "test", Now: now.Add(-48 * time.Hour), Validity: time.Hour}); err != nil {
		t.Fatal(err)
	}
	for _, role := range []string{"sender", "node", "warmer", "viewer"} {
		if role == ended {
			continue
		}
		if _, _, err := identity.Renew(dir, []string{role}, identity.InitOptions{Validity: 10*24*time.Hour + time.Hour}); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestEndingCertificates: everybody who can do something about it is told before a certificate ends, and how.
func TestEndingCertificates(t *testing.T) {
	keys := endingKeys(t, "")
	image := filepath.Join(t.TempDir(), "a.sif")
	if err := sif.Create(image, strings.NewReader("x"), sif.CreateOptions{FS: sif.FSRaw}); err != nil {
		t.Fatal(err)
	}
	var addrs []string
	for range 2 {
		p, err := launch.Start(t.Context(), exec.Command("dolly-img", "daemon", "--keys", keys, "--cache", t.TempDir(), "--listen", "127.0.0.1:0"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Kill)
		addrs = append(addrs, p.Addr)
		if want := "level=WARN msg=\"the certificate in " + keys + "/node.pem ends on "; !strings.Contains(p.Log(), want) || !strings.Contains(p.Log(), ", in 10 days\" hint=\"on the server: dolly-img keys renew;") {
			t.Errorf("the daemon's log does not say %q: %s", want, p.Log())
		}
	}
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("dolly-img", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	for _, flag := range []string{"--quiet", "--check", "--json"} {
		out := run("push", image, "--keys", keys, "--nodes", strings.Join(addrs, ","), flag)
		for _, want := range []string{
			`(?m)^warning: the certificate in \S+/sender.pem ends on \S+, in 10 days; on the server: dolly-img keys renew;`,
			`(?m)^warning: the certificate of 127\.0\.0\.1:\S+ ends on \S+, in 10 days; on the server: dolly-img keys renew;`,
		} {
			if n := len(regexp.MustCompile(want).FindAllString(out, -1)); n != 1 {
				t.Errorf("push %s says %d times %q: %s", flag, n, want, out)
			}
		}
	}
	if out := run("keys", "show", "--keys", keys); strings.Count(out, "\nsoon the certificate in ") != 4 {
		t.Errorf("keys show: %s", out)
	}
	if out := run("daemon", "--check-config", "--keys", keys, "--cache", t.TempDir(), "--listen", "127.0.0.1:0"); !strings.Contains(out, "\nwarning  the certificate in ") {
		t.Errorf("--check-config: %s", out)
	}

	// Renewed, nobody warns.
	run("keys", "renew", "--keys", keys)
	out := run("push", image, "--keys", keys, "--nodes", addrs[0], "--check")
	if strings.Contains(out, "sender.pem") || !strings.Contains(out, "the certificate of "+addrs[0]) {
		t.Errorf("a sender with a new key, a node that was not told: %s", out)
	}
}

// TestEndedCertificates: with one that has ended nothing begins, and the hint names the machine on which
// to renew it.
func TestEndedCertificates(t *testing.T) {
	for role, args := range map[string][]string{
		"sender": {"raw", os.Args[0], "--verify-only", "--nodes", "127.0.0.1:1"},
		"node":   {"daemon", "--listen", "127.0.0.1:0", "--cache", t.TempDir()},
	} {
		keys := endingKeys(t, role)
		out, err := exec.Command("dolly-img", append(args, "--keys", keys)...).CombinedOutput()
		want := "key file " + keys + "/" + role + ".pem: expired: on "
		hint := "hint: on the server: dolly-img keys renew; then copy " + role + ".pem from there, and ca.pem\n"
		if err == nil || !bytes.Contains(out, []byte(want)) || !bytes.Contains(out, []byte(hint)) {
			t.Errorf("%s: %v: %s", role, err, out)
		}
	}
}
