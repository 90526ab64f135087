package test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

const (
	maxLines    = 400 // of a file of code; tests may be longer
	maxFunction = 70  // lines of a function, its tables not counted
	minTable    = 8   // lines of a composite literal that is a table
)

// longByDesign are functions that may be longer: they are lists of cases, one beside the other.
var longByDesign = []string{
	"ring/internal/coordinator/machine_test.go: event", // one case for each verb of a scenario
}

// simulation matches the files that describe faults and choices for the simulation and the explorer.
// Their lists of cases may be long.
var simulation = regexp.MustCompile(`/(sim|explore)_[^/]*_test\.go$`)

// topLevel is what the root of the project may hold beside dot files. The binary is
// what "go build ./cmd/dolly-img" leaves there.
var topLevel = []string{
	"cmd", "ring", "oci", "sif", "cache", "test", "go.mod", "go.sum", "README.md", "LICENSE", "dolly-img",
}

var fuzzTarget = regexp.MustCompile(`(?m)^func (Fuzz\w*)\(\w+ \*testing\.F\)`)

// counterpart finds the programs that a test demands when test/run has installed them.
var counterpart = regexp.MustCompile(`LookPath\("([^"]+)"\)`)

// checkLayout returns what is wrong with the files of root.
func checkLayout(root fs.FS) (wrong []string, err error) {
	install, err := fs.ReadFile(root, "test/run")
	if err != nil {
		return nil, err
	}
	top, err := fs.ReadDir(root, ".")
	if err != nil {
		return nil, err
	}
	for _, e := range top {
		if name := e.Name(); name[0] != '.' && !slices.Contains(topLevel, name) {
			wrong = append(wrong, fmt.Sprintf("%s: not one of the top-level folders and files", name))
		}
	}
	targets := 0
	err = fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != "." && d.Name()[0] == '.':
			return fs.SkipDir
		case d.IsDir() || path.Ext(name) != ".go":
			return nil
		}
		text, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		long, err := longFunctions(name, text)
		wrong = append(wrong, long...)
		if strings.HasSuffix(name, "_test.go") {
			wrong = append(wrong, checkCounterparts(name, text, install)...)
			n, without := checkCorpora(root, name, text)
			wrong = append(wrong, without...)
			targets += n
		} else if n := bytes.Count(text, []byte("\n")); n > maxLines {
			wrong = append(wrong, fmt.Sprintf("%s: %d lines, at most %d", name, n, maxLines))
		}
		return err
	})
	if targets == 0 {
		wrong = append(wrong, "no fuzz target at all: nothing was checked")
	}
	return wrong, err
}

// longFunctions finds the functions of a file that have too many lines.
func longFunctions(name string, text []byte) (wrong []string, err error) {
	if simulation.MatchString(name) {
		return nil, nil
	}
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, name, text, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	lines := func(n ast.Node) int { return files.Position(n.End()).Line - files.Position(n.Pos()).Line + 1 }
	for _, d := range file.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || slices.Contains(longByDesign, name+": "+fn.Name.Name) {
			continue
		}
		n := lines(fn)
		ast.Inspect(fn, func(in ast.Node) bool {
			table, ok := in.(*ast.CompositeLit)
			if ok = ok && lines(table) >= minTable; ok {
				n -= lines(table)
			}
			return !ok
		})
		if n > maxFunction {
			wrong = append(wrong, fmt.Sprintf("%s: %s has %d lines beside its tables, at most %d", name, fn.Name.Name, n, maxFunction))
		}
	}
	return wrong, nil
}

// checkCounterparts finds the programs that a test demands and test/run does not install.
func checkCounterparts(name string, text, install []byte) (wrong []string) {
	if !bytes.Contains(text, []byte("DOLLY_IMG_"+"COUNTERPARTS")) {
		return nil
	}
	for _, m := range counterpart.FindAllSubmatch(text, -1) {
		if !bytes.Contains(install, append(m[1], ':')) {
			wrong = append(wrong, fmt.Sprintf("%s: test/run does not install %s", name, m[1]))
		}
	}
	return wrong
}

// checkCorpora counts the fuzz targets of a file, and finds those without a corpus.
func checkCorpora(root fs.FS, name string, text []byte) (targets int, wrong []string) {
	for _, m := range fuzzTarget.FindAllSubmatch(text, -1) {
		targets++
		corpus := path.Join(path.Dir(name), "testdata/fuzz", string(m[1]))
		files, _ := fs.ReadDir(root, corpus)
		if !slices.ContainsFunc(files, func(f fs.DirEntry) bool { return f.Type().IsRegular() }) {
			wrong = append(wrong, fmt.Sprintf("%s: no corpus for this fuzz target", corpus))
		}
	}
	return targets, wrong
}

func TestLayout(t *testing.T) {
	wrong, err := checkLayout(os.DirFS(".."))
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range wrong {
		t.Error(w)
	}
}

func TestLayoutRules(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	lines := func(n int) string { return strings.Repeat("\n", n) }
	const (
		head   = "package p\n"
		demand = head + "// DOLLY_IMG_" + "COUNTERPARTS\nvar _ = LookPath(\"skopeo\")"
		fuzz   = head + "func FuzzFrame(f *testing.F) {\n}\n"
	)
	long := func(n int) string { return head + "func long() {" + lines(n-1) + "}\n" }
	table := func(n int) string { return "\nvar _ = []int{" + lines(n-1) + "}" }
	good := fstest.MapFS{
		".ci/run":                          file(""),
		"go.mod":                           file(""),
		"test/run":                         file("needs=(skopeo:skopeo)"),
		"cache/cache_test.go":              file(demand),
		"ring/ring.go":                     file(head + lines(maxLines-1)),
		"ring/ring_test.go":                file(fuzz + lines(maxLines)),
		"ring/testdata/fuzz/FuzzFrame/one": file("go test fuzz v1\n"),
		"ring/as_long_as_it_may_be.go":     file(long(maxFunction)),
		"ring/table_test.go":               file(head + "func TestTable() {" + table(2*maxFunction) + table(maxFunction) + lines(maxFunction-1) + "}"),
		"ring/sim_fault_test.go":           file(long(2 * maxFunction)),
	}
	if wrong, err := checkLayout(good); err != nil || len(wrong) > 0 {
		t.Errorf("%v %v", wrong, err)
	}
	for _, tt := range []struct {
		remove, add string
		text        string
		want        string
	}{
		{"", "util/util.go", head, "util: not one of"},
		{"", "Makefile", "", "Makefile: not one of"},
		{"", "ring/long.go", head + lines(maxLines), "ring/long.go: 401 lines"},
		{"", "ring/long.go", long(maxFunction + 1), "ring/long.go: long has 71 lines"},
		{"", "ring/long_test.go", long(maxFunction + 1), "ring/long_test.go: long has 71 lines"},
		{"", "ring/list_test.go", head + "func list() {" + table(minTable-1) + lines(maxFunction-minTable+1) + "}", "ring/list_test.go: list has 71 lines"},
		{"test/run", "test/run", "needs=(nodeset:clustershell)", "cache/cache_test.go: test/run does not install skopeo"},
		{"ring/testdata/fuzz/FuzzFrame/one", "ring/other", "", "ring/testdata/fuzz/FuzzFrame: no corpus"},
		{"ring/testdata/fuzz/FuzzFrame/one", "ring/testdata/fuzz/FuzzOther/one", "", "ring/testdata/fuzz/FuzzFrame: no corpus"},
		{"ring/ring_test.go", "ring/other", "", "no fuzz target"},
	} {
		bad := maps.Clone(good)
		delete(bad, tt.remove)
		bad[tt.add] = file(tt.text)
		wrong, err := checkLayout(bad)
		if err != nil || len(wrong) != 1 || !strings.HasPrefix(wrong[0], tt.want) {
			t.Errorf("%s: got %v, %v", tt.want, wrong, err)
		}
	}
}
