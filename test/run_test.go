package test

import (
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// byHand are tests that are not for the race detector, and that ./test/run leaves out: of a simplification that the explorer makes,
// and of a server's memory with a disk of 2 TiB. The third is a part of a benchmark.
var byHand = []string{"TestOwnWork", "TestTerabytes", "TestRoundNodes"}

// Whatever is not compiled with the race detector is among what ./test/run runs without: nobody would miss it.
func TestRunWithoutRace(t *testing.T) {
	script, err := os.ReadFile("run")
	if err != nil {
		t.Fatal(err)
	}
	plain := regexp.MustCompile(`CGO_ENABLED=0 run [^\n]*-run ['"]([^'"]*)['"]([^\n]*)`).FindAllStringSubmatch(string(script), -1)
	if len(plain) == 0 {
		t.Fatal("test/run runs nothing without the race detector")
	}
	name := regexp.MustCompile(`(?m)^func (Test\w*)\(t \*testing\.T\)`)
	found := 0
	err = fs.WalkDir(os.DirFS(".."), ".", func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(file, "_test.go") {
			return err
		}
		text, err := os.ReadFile("../" + file)
		if err != nil || !strings.HasPrefix(string(text), "//go:build !race\n") {
			return err
		}
		for _, test := range name.FindAllStringSubmatch(string(text), -1) {
			found++
			if !slices.Contains(byHand, test[1]) && !slices.ContainsFunc(plain, func(p []string) bool {
				return slices.Contains(strings.Fields(p[2]), "./"+path.Dir(file)) && regexp.MustCompile(p[1]).MatchString(test[1])
			}) {
				t.Errorf("%s: %s is run neither with the race detector nor without", file, test[1])
			}
		}
		return nil
	})
	if err != nil || found == 0 {
		t.Fatalf("%d tests, %v", found, err)
	}
}
