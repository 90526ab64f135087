package main

//go:generate go test -run ^TestDocsCurrent$ . -update

import (
	"bytes"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

var update = flag.Bool("update", false, "write the command reference in doc/ and the manual pages in man/ anew")

// TestDocsCurrent compares the command reference in doc/ and the manual pages in man/ with the commands, and with the keys of a list. To write them
// anew: go generate ./cmd/...
func TestDocsCurrent(t *testing.T) {
	want := map[string][]byte{"man/dolly.1": manual(t, newDolly()), "man/dolly-img-warm.toml.5": listManual(t)}
	var add func(cmd *cobra.Command)
	add = func(cmd *cobra.Command) {
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() {
				add(sub)
			}
		}
		want["man/"+fileName(cmd, "-", ".1")] = manual(t, cmd)
		var b bytes.Buffer
		if err := doc.GenMarkdown(cmd, &b); err != nil {
			t.Fatal(err)
		}
		want["doc/"+fileName(cmd, "_", ".md")] = b.Bytes()
	}
	add(newRoot())
	there := func() (files []string) {
		for _, pattern := range []string{"doc/*", "man/*"} {
			found, _ := filepath.Glob(pattern)
			files = append(files, found...)
		}
		return files
	}
	if *update {
		for _, name := range there() {
			os.Remove(name)
		}
		for name, page := range want {
			if err := os.WriteFile(name, page, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, name := range there() {
		if want[name] == nil {
			t.Errorf("%s: there is no such command; run go generate ./cmd/...", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		got, err := os.ReadFile(name)
		if err != nil || !bytes.Equal(got, want[name]) {
			t.Errorf("%s is not what the command says (%v); run go generate ./cmd/...", name, err)
		}
	}
}

// manual returns the manual page of a command. It has no date, since it says what this version does.
func manual(t *testing.T, cmd *cobra.Command) []byte {
	t.Helper()
	cmd.DisableAutoGenTag = true
	cmd.Long = blocks(cmd.Long)
	var b bytes.Buffer
	if err := doc.GenMan(cmd, &doc.GenManHeader{Section: "1", Source: "dolly-img", Manual: "User Commands", Date: &time.Time{}}, &b); err != nil {
		t.Fatal(err)
	}
	page := bytes.Replace(b.Bytes(), []byte(`"Jan 0001"`), []byte(`""`), 1)
	if name := cmd.Name(); name == "warm" || name == "status" {
		above, also, ok := bytes.Cut(page, []byte(".SH SEE ALSO\n"))
		if !ok {
			t.Errorf("%s: no SEE ALSO", name)
		}
		page = slices.Concat(above, []byte(".SH SEE ALSO\n\\fBdolly-img-warm.toml(5)\\fP, "), also)
	}
	return page
}

// blocks has Markdown show lines that begin with a blank or a tab as they are.
func blocks(text string) string {
	var lines []string
	inside := false
	for line := range strings.SplitSeq(text, "\n") {
		indented := strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t")
		if indented != inside && line != "" && len(lines) > 0 && lines[len(lines)-1] != "" {
			lines = append(lines, "")
		}
		if indented {
			line = "\t" + strings.TrimPrefix(line, "\t")
		}
		inside = indented
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

// fileName is the one that the pages' links have.
func fileName(cmd *cobra.Command, blank, ext string) string {
	return string(bytes.ReplaceAll([]byte(cmd.CommandPath()), []byte(" "), []byte(blank))) + ext
}
