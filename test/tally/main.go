// Tally reads what "go test -json" prints and tells a person what came of it: the
// output of what failed, a line for each package, every skipped test with its reason,
// the tests that took longest, and last the count.
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

func main() {
	failed, err := tally(os.Stdin, os.Stdout)
	if err != nil {
		fmt.Fprintf(os.Stderr, "tally: %v\n", err)
	}
	if failed || err != nil {
		os.Exit(1)
	}
}

// event is one line of "go test -json" (see "go doc test2json").
type event struct {
	Action  string
	Package string
	Test    string
	Elapsed float64
	Output  string
}

type test struct{ pkg, name string }

// shown is how many of the tests that took longest are named: whoever has to make the run shorter starts there.
const shown = 12

// timed is a test that is no subtest, and the seconds it took.
type timed struct {
	test
	seconds float64
}

type counts struct {
	passed, failed int
	skipped        []string // "package test: reason"
	output         map[test][]string
	broken         map[string]bool // packages with a failed test of their own
	times          []timed
}

// tally reports whether a test failed, or a package could not be tested, or no test
// was run at all.
func tally(r io.Reader, w io.Writer) (failed bool, err error) {
	c := counts{output: map[test][]string{}, broken: map[string]bool{}}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil || e.Action == "" {
			fmt.Fprintf(w, "%s\n", lines.Bytes()) // the go command itself
			continue
		}
		c.add(w, e)
	}
	if c.passed+c.failed == 0 {
		fmt.Fprintln(w, "no test was run")
		failed = true
	}
	for _, s := range c.skipped {
		fmt.Fprintf(w, "skipped: %s\n", s)
	}
	slices.SortStableFunc(c.times, func(a, b timed) int { return cmp.Compare(b.seconds, a.seconds) })
	for _, t := range c.times[:min(shown, len(c.times))] {
		fmt.Fprintf(w, "%5.1f s  %s %s\n", t.seconds, t.pkg, t.name)
	}
	fmt.Fprintf(w, "%d passed, %d failed, %d skipped\n", c.passed, c.failed, len(c.skipped))
	return failed || c.failed > 0, lines.Err()
}

func (c *counts) add(w io.Writer, e event) {
	key := test{e.Package, e.Test}
	if e.Elapsed >= 1 && e.Test != "" && !strings.Contains(e.Test, "/") {
		c.times = append(c.times, timed{key, e.Elapsed})
	}
	switch e.Action {
	case "build-output":
		fmt.Fprint(w, e.Output)
	case "output":
		c.output[key] = append(c.output[key], e.Output)
		return
	case "pass":
		if e.Test != "" {
			c.passed++
		} else {
			fmt.Fprintf(w, "ok    %s  %.1f s\n", e.Package, e.Elapsed)
		}
	case "skip":
		if e.Test != "" {
			c.skipped = append(c.skipped, fmt.Sprintf("%s %s: %s", e.Package, e.Test, reason(c.output[key])))
		}
	case "fail":
		// A package that fails beside all its tests did not build, or died.
		if e.Test != "" || !c.broken[e.Package] {
			c.failed++
		}
		c.broken[e.Package] = true
		fmt.Fprint(w, strings.Join(c.output[key], ""))
		if e.Test == "" {
			fmt.Fprintf(w, "FAIL  %s  %.1f s\n", e.Package, e.Elapsed)
		}
	default:
		return
	}
	delete(c.output, key)
}

// reason is what the test said to t.Skip, without the place in the source.
func reason(output []string) string {
	for _, line := range output {
		if _, said, ok := strings.Cut(strings.TrimSpace(line), ".go:"); ok {
			if _, said, ok := strings.Cut(said, ": "); ok {
				return said
			}
		}
	}
	return "no reason given"
}
