// Package e2e drives the shipped binary as its users do: real processes, each node in
// a network namespace of its own.
package e2e

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/test/netns"
)

// What TestMain builds once.
var (
	binary  string // dolly-img
	siftool string // of sylabs

	conformance string // of the OCI distribution specification
	sample      string // of the page of --web, with nodes that are made up
)

func TestMain(m *testing.M) {
	// This program again, on a node.
	roles := map[string]func(args []string) error{"damager": runDamager, "hostile": runHostile}
	if len(os.Args) > 1 && roles[os.Args[1]] != nil {
		fmt.Fprintln(os.Stderr, roles[os.Args[1]](os.Args[2:]))
		os.Exit(1)
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if netns.Available() != nil {
		return m.Run() // and every test says why it is skipped
	}
	dir, err := os.MkdirTemp("", "dolly-img-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary, siftool, conformance = filepath.Join(dir, "dolly-img"), filepath.Join(dir, "siftool"), filepath.Join(dir, "conformance")
	sample = filepath.Join(dir, "sample")
	for out, pkg := range map[string]string{
		binary:  "github.com/dolly-img/dolly-img/cmd/dolly-img",
		siftool: "github.com/sylabs/sif/v2/cmd/siftool",

		conformance: "github.com/opencontainers/distribution-spec/conformance",
		sample:      "github.com/dolly-img/dolly-img/cmd/dolly-img/internal/web/sample",
	} {
		build := exec.Command("go", "build", "-o", out, pkg)
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			fmt.Fprintf(os.Stderr, "go build %s: %v\n", pkg, err)
			return 1
		}
	}
	return m.Run()
}

// together lets a test run beside others, since most of it is waiting. Whoever measures times runs it alone.
func together(t *testing.T) {
	if !measures() {
		t.Parallel()
	}
}

// need skips or fails the test where it cannot run, and bounds it.
func need(t *testing.T, limit time.Duration, programs ...string) context.Context {
	t.Helper()
	needPrograms(t, programs...)
	ctx, cancel := context.WithTimeoutCause(t.Context(), limit, fmt.Errorf("the test has %v", limit))
	t.Cleanup(cancel)
	return ctx
}

// needPrograms skips or fails the test where one of them, or a namespace, cannot be had.
func needPrograms(t *testing.T, programs ...string) {
	t.Helper()
	missing := netns.Available()
	for _, p := range programs {
		_, err := exec.LookPath(p)
		if err == nil && p == busybox {
			err = runsAnywhere(p)
		}
		if err != nil && missing == nil {
			missing = fmt.Errorf("counterpart missing: %s: %w", p, err)
		}
	}
	if missing != nil {
		if os.Getenv("DOLLY_IMG_COUNTERPARTS") == "1" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
}

// busybox is what tests put into images to be run there.
const busybox = "/bin/busybox"

// runsAnywhere says why a program does not run where nothing else is: it needs the
// dynamic linker, and libraries, that an image does not have.
func runsAnywhere(program string) error {
	f, err := elf.Open(program)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return errors.New("it is linked dynamically and does not run inside of an image: install the package busybox-static in place of busybox")
		}
	}
	return nil
}

func TestRunsAnywhere(t *testing.T) {
	together(t)
	if err := runsAnywhere("/bin/sh"); err == nil || !strings.Contains(err.Error(), "busybox-static") {
		t.Errorf("a shell that needs libraries: %v", err)
	}
	static := filepath.Join(t.TempDir(), "static")
	build := exec.Command("go", "build", "-o", static, "github.com/dolly-img/dolly-img/test/tally")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := runsAnywhere(static); err != nil {
		t.Errorf("a program that needs nothing: %v", err)
	}
}

// eventually asks until it is told yes. It is the one place that polls: for what the
// system does not tell, such as another process's memory.
func eventually(t *testing.T, limit time.Duration, what string, yes func() (bool, string)) {
	t.Helper()
	deadline := time.After(limit)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, state := yes()
		if ok {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Errorf("%s: not within %v: %s", what, limit, state)
			return
		}
	}
}
