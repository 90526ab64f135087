package main

import (
	"fmt"
	"regexp"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dolly-img/dolly-img/ring"
)

// release is the version of a build that gets it from no module or repository, such as a
// package of a distribution. The linker sets it: go build -ldflags '-X main.release=1.2.0'.
var release string

// build is what this program knows about how it was built.
type build struct {
	version string // such as "1.2.0", or "devel"
	commit  string // hexadecimal; "" is unknown
	// modified says that the source had changes that are not in the commit.
	modified bool
	goLang   string // Go's own version, such as "go1.26.0"
}

// pseudo matches the version that Go gives to a commit without a tag. It ends with the
// commit. See https://go.dev/ref/mod#pseudo-versions.
var pseudo = regexp.MustCompile(`^v(\d+\.\d+\.\d+)-(?:.*\.)?\d{14}-([0-9a-f]{12})(?:\+|$)`)

// thisBuild returns what the Go tool recorded in the running program.
func thisBuild() build {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	return describeBuild(info, release)
}

func describeBuild(info *debug.BuildInfo, release string) build {
	b := build{version: strings.TrimPrefix(info.Main.Version, "v"), goLang: info.GoVersion}
	b.modified = strings.HasSuffix(b.version, "+dirty")
	if m := pseudo.FindStringSubmatch(info.Main.Version); m != nil {
		b.commit = m[2]
		if m[1] == "0.0.0" { // there was no release before this commit
			b.version = ""
		}
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.commit = s.Value
		case "vcs.modified":
			b.modified = s.Value == "true"
		}
	}
	if release != "" {
		b.version = strings.TrimPrefix(release, "v")
	}
	if b.version == "" || b.version == "(devel)" {
		b.version = "devel"
	}
	return b
}

// String returns the short form for peers, reports and logs: "dolly-img 1.2.0 (abc1234)".
func (b build) String() string {
	s := "dolly-img " + b.version
	switch {
	case b.commit != "" && b.modified:
		s += fmt.Sprintf(" (%.7s, modified)", b.commit)
	case b.commit != "":
		s += fmt.Sprintf(" (%.7s)", b.commit)
	}
	return s
}

// text returns what the command prints.
func (b build) text() string {
	commit := "unknown"
	if b.commit != "" {
		commit = b.commit
		if b.modified {
			commit += ", modified"
		}
	}
	return fmt.Sprintf("dolly-img %s\ncommit    %s\ngo        %s\nprotocol  %s\n", b.version, commit, orDash(b.goLang), protocols())
}

// protocols returns the versions of the ring's protocol that this program speaks.
func protocols() string {
	if ring.ProtocolMin == ring.ProtocolMax {
		return fmt.Sprint(ring.ProtocolMax)
	}
	return fmt.Sprintf("%d to %d", ring.ProtocolMin, ring.ProtocolMax)
}

// software returns this program and its version, in the short form.
func software() string { return thisBuild().String() }

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print version, commit, Go version and protocol",
		Long: `Version prints the version of this program, the commit it was built from, the version of
Go, and the versions of the ring's protocol that it speaks. A server and a node
understand each other if they have one of these versions in common.`,
		Args: exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			fmt.Fprint(cmd.OutOrStdout(), thisBuild().text())
			return nil
		},
	}
}
