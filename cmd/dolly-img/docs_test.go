package main

//go:generate go test -run ^TestDocsCurrent$ . -update

import (
	"bytes"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

var update = flag.Bool("update", false, "write the command reference in doc/ anew")

// TestDocsCurrent compares the command reference in doc/ with the commands. To write it
// anew: go generate ./cmd/...
func TestDocsCurrent(t *testing.T) {
	want := map[string][]byte{}
	var add func(cmd *cobra.Command)
	add = func(cmd *cobra.Command) {
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() {
				add(sub)
			}
		}
		var b bytes.Buffer
		cmd.DisableAutoGenTag = true
		if err := doc.GenMarkdown(cmd, &b); err != nil {
			t.Fatal(err)
		}
		want[fileName(cmd)] = b.Bytes()
	}
	add(newRoot())
	if *update {
		old, _ := filepath.Glob("doc/*.md")
		for _, name := range old {
			os.Remove(name)
		}
		for name, page := range want {
			if err := os.WriteFile(filepath.Join("doc", name), page, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	entries, err := os.ReadDir("doc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if want[e.Name()] == nil {
			t.Errorf("doc/%s: there is no such command; run go generate ./cmd/...", e.Name())
		}
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		got, err := os.ReadFile(filepath.Join("doc", name))
		if err != nil || !bytes.Equal(got, want[name]) {
			t.Errorf("doc/%s is not what the command says (%v); run go generate ./cmd/...", name, err)
		}
	}
}

// fileName is the one that the pages' links have.
func fileName(cmd *cobra.Command) string {
	return string(bytes.ReplaceAll([]byte(cmd.CommandPath()), []byte(" "), []byte("_"))) + ".md"
}
