package main

import (
	"fmt"
	"regexp"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dolly-img/dolly-img/ring"
)

// release is the version of a build that has it from no module or repository, as a
// package of a distribution. The linker sets it: go build -ldflags '-X main.release=1.2.0'.
var release string

// build is what this program knows of its making.
type build struct {
	version  string // such as "1.2.0", or "devel"
	commit   string // hexadecimal; "" is unknown
	modified bool   // the source was not that of the commit alone
	goLang   string // Go's own version, as in "go1.26.0"
}

// pseudo is the version that Go gives to a commit without a tag of its own; it ends with the
// commit. See https://go.dev/ref/mod#pseudo-versions.
var pseudo = regexp.MustCompile(`^v(\d+\.\d+\.\d+)-(?:.*\.)?\d{14}-([0-9a-f]{12})(?:\+|$)`)

// thisBuild is what the Go tool recorded in the running program.
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
		if m[1] == "0.0.0" { // no version was ever given out
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

// String is the short form, which peers, reports and logs are told: "dolly-img 1.2.0 (abc1234)".
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

// text is what the command prints.
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

// protocols are the versions of the ring's protocol that this program speaks.
func protocols() string {
	if ring.ProtocolMin == ring.ProtocolMax {
		return fmt.Sprint(ring.ProtocolMax)
	}
	return fmt.Sprintf("%d to %d", ring.ProtocolMin, ring.ProtocolMax)
}

// software is this program and its version, in the short form.
func software() string { return thisBuild().String() }

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print version, commit, Go version and protocol",
		Long: `Version prints the version of this program, the commit it was built from, the version of
Go, and the versions of the ring's protocol that it speaks. Server and nodes
understand each other when they have one of these versions in common.`,
		Args: exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			fmt.Fprint(cmd.OutOrStdout(), thisBuild().text())
			return nil
		},
	}
}
