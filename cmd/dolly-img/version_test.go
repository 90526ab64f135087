package main

import (
	"runtime/debug"
	"testing"
)

// What the Go tool records differs with how a program was built.
func TestDescribeBuild(t *testing.T) {
	const hash = "7435a468fc8d07eae115432d792317930ad06462"
	vcs := func(modified string) []debug.BuildSetting {
		return []debug.BuildSetting{{Key: "vcs", Value: "git"}, {Key: "vcs.revision", Value: hash}, {Key: "vcs.modified", Value: modified}}
	}
	for _, c := range []struct {
		name, module, release string
		settings              []debug.BuildSetting
		short, commit         string
	}{
		{"a tarball", "(devel)", "", nil, "dolly-img devel", "unknown"},
		{"a package", "(devel)", "1.2.0", nil, "dolly-img 1.2.0", "unknown"},
		{"a package of a checkout", "v1.2.0", "v1.2.0-3.el9", vcs("false"), "dolly-img 1.2.0-3.el9 (7435a46)", hash},
		{"a tag", "v1.2.0", "", vcs("false"), "dolly-img 1.2.0 (7435a46)", hash},
		{"a tag, changed", "v1.2.0+dirty", "", vcs("true"), "dolly-img 1.2.0+dirty (7435a46, modified)", hash + ", modified"},
		{"a commit", "v0.0.0-20261128140024-7435a468fc8d", "", vcs("false"), "dolly-img devel (7435a46)", hash},
		{"a commit, changed", "v0.0.0-20261128140024-7435a468fc8d+dirty", "", vcs("true"), "dolly-img devel (7435a46, modified)", hash + ", modified"},
		{"go install of a commit", "v0.0.0-20261128140024-7435a468fc8d", "", nil, "dolly-img devel (7435a46)", "7435a468fc8d"},
		{"go install of a commit after a tag", "v1.2.1-0.20261128140024-7435a468fc8d", "", nil,
			"dolly-img 1.2.1-0.20261128140024-7435a468fc8d (7435a46)", "7435a468fc8d"},
	} {
		b := describeBuild(&debug.BuildInfo{GoVersion: "go1.26.0", Main: debug.Module{Version: c.module}, Settings: c.settings}, c.release)
		if got := b.String(); got != c.short {
			t.Errorf("%s: %q, want %q", c.name, got, c.short)
		}
		want := "dolly-img " + b.version + "\ncommit    " + c.commit + "\ngo        go1.26.0\nprotocol  1 to 8\n"
		if got := b.text(); got != want {
			t.Errorf("%s: %q, want %q", c.name, got, want)
		}
	}
}
