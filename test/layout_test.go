package test

import (
	"bytes"
	"fmt"
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

const maxLines = 400 // of a file of code; tests may be longer

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
	fuzz := map[string]bool{} // corpus directory: has a file
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
		if !strings.HasSuffix(name, "_test.go") {
			if n := bytes.Count(text, []byte("\n")); n > maxLines {
				wrong = append(wrong, fmt.Sprintf("%s: %d lines, at most %d", name, n, maxLines))
			}
			return nil
		}
		if bytes.Contains(text, []byte("DOLLY_IMG_"+"COUNTERPARTS")) {
			for _, m := range counterpart.FindAllSubmatch(text, -1) {
				if !bytes.Contains(install, append(m[1], ':')) {
					wrong = append(wrong, fmt.Sprintf("%s: test/run does not install %s", name, m[1]))
				}
			}
		}
		for _, m := range fuzzTarget.FindAllSubmatch(text, -1) {
			corpus := path.Join(path.Dir(name), "testdata/fuzz", string(m[1]))
			files, _ := fs.ReadDir(root, corpus)
			fuzz[corpus] = slices.ContainsFunc(files, func(f fs.DirEntry) bool { return f.Type().IsRegular() })
		}
		return nil
	})
	for _, corpus := range slices.Sorted(maps.Keys(fuzz)) {
		if !fuzz[corpus] {
			wrong = append(wrong, fmt.Sprintf("%s: no corpus for this fuzz target", corpus))
		}
	}
	if len(fuzz) == 0 {
		wrong = append(wrong, "no fuzz target at all: nothing was checked")
	}
	return wrong, err
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
	good := fstest.MapFS{
		".ci/run":             file(""),
		"go.mod":              file(""),
		"test/run":            file("needs=(skopeo:skopeo)"),
		"cache/cache_test.go": file("DOLLY_IMG_" + "COUNTERPARTS LookPath(\"skopeo\")"),
		"ring/ring.go":        file(strings.Repeat("\n", maxLines)),
		"ring/ring_test.go": file(strings.Repeat("\n", maxLines+1) +
			"func FuzzFrame(f *testing.F) {\n"),
		"ring/testdata/fuzz/FuzzFrame/one": file("go test fuzz v1\n"),
	}
	if wrong, err := checkLayout(good); err != nil || len(wrong) > 0 {
		t.Errorf("%v %v", wrong, err)
	}
	for _, tt := range []struct {
		remove, add string
		text        string
		want        string
	}{
		{"", "util/util.go", "", "util: not one of"},
		{"", "Makefile", "", "Makefile: not one of"},
		{"", "ring/long.go", strings.Repeat("\n", maxLines+1), "ring/long.go: 401 lines"},
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
