package main

import (
	"slices"
	"strings"
	"testing"
)

// The value of --web can be left out, and what follows it is its value only if it is an address.
func TestJoinWeb(t *testing.T) {
	for args, want := range map[string]string{
		"push --web :8080 a.sif":              "push --web=:8080 a.sif",
		"push --web 10.0.0.1:80 -w a":         "push --web=10.0.0.1:80 -w a",
		"raw --web [::1]:80 f":                "raw --web=[::1]:80 f",
		"push --web localhost:0 a.sif":        "push --web=localhost:0 a.sif",
		"push --web a.sif":                    "push --web a.sif",
		"push --web docker://r.example:80/a":  "push --web docker://r.example:80/a",
		"push --web oci:80":                   "push --web oci:80",
		"push a.sif --web":                    "push a.sif --web",
		"push --web=login:80 :90":             "push --web=login:80 :90",
		"raw -w a --output /f -- --web :8080": "raw -w a --output /f -- --web :8080",
	} {
		if got := joinWeb(strings.Fields(args)); !slices.Equal(got, strings.Fields(want)) {
			t.Errorf("%s becomes %q", args, got)
		}
	}
}

// The command that serves the rest of the nodes can be given as it is printed.
func TestAgainWithWeb(t *testing.T) {
	cmd := newPush()
	if err := cmd.ParseFlags([]string{"a.sif", "--web=login1:8080", "--web-stay", "-w", "n[1-2]"}); err != nil {
		t.Fatal(err)
	}
	if got := again(cmd, []string{"n2"}); got != "push a.sif --nodes n2 --web=login1:8080 --web-stay" {
		t.Error(got)
	}
	for _, bad := range []string{"8080", "a:b:c"} {
		f := webFlags{addr: bad}
		if err := f.check(); err == nil || exitCode(err) != 2 {
			t.Errorf("--web %s: %v", bad, err)
		}
	}
	if f := (webFlags{wait: true}); f.check() != nil || f.addr != anyWeb {
		t.Errorf("--web-stay alone: %q", f.addr)
	}
}
