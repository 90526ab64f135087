//go:build !race

package coordinator

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// buildMutants builds the tests of this package with all mutants in it: a function that some of them change begins with a look at
// which is wanted, and then calls a copy of itself with that one's edits.
func buildMutants(t *testing.T, all []mutant) (program string) {
	t.Helper()
	dir := t.TempDir()
	replace := map[string]string{}
	add := func(path, text string) {
		abs, err := filepath.Abs(path)
		if err != nil {
			t.Fatal(err)
		}
		if replace[abs] == "" {
			replace[abs] = filepath.Join(dir, fmt.Sprint(len(replace), ".go"))
		}
		if err := os.WriteFile(replace[abs], []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	files := map[string]*mutated{}
	for i, m := range all {
		for _, e := range m.edits {
			f := files[e.file]
			if f == nil {
				f = newMutated(t, e.file)
				files[e.file] = f
			}
			f.edit(t, i+1, e)
		}
	}
	for path, f := range files {
		add(path, f.text())
		add(filepath.Join(filepath.Dir(path), "mutant.go"), fmt.Sprintf(`package %s

import (
	"os"
	"strconv"
)

var wantedMutant, _ = strconv.Atoi(os.Getenv("MUTANT"))
`, f.parsed.Name.Name))
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	overlay := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(overlay, list, 0o600); err != nil {
		t.Fatal(err)
	}
	program = filepath.Join(dir, "mutants")
	if out, err := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", program, "-vet=off", "-ldflags=-s -w", "-overlay", overlay, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

// mutated is a file with mutants of its functions.
type mutated struct {
	source string
	files  *token.FileSet
	parsed *ast.File
	copies map[*ast.FuncDecl]map[int]string // by mutant
}

func newMutated(t *testing.T, path string) *mutated {
	t.Helper()
	source, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f := &mutated{source: string(source), files: token.NewFileSet(), copies: map[*ast.FuncDecl]map[int]string{}}
	if f.parsed, err = parser.ParseFile(f.files, path, source, 0); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *mutated) at(p token.Pos) int { return f.files.Position(p).Offset }

// edit edits a mutant's copy of the function that has the text.
func (f *mutated) edit(t *testing.T, mutant int, e edit) {
	t.Helper()
	if strings.Count(f.source, e.old) != 1 {
		t.Fatalf("%s does not have once: %s", e.file, e.old)
	}
	at := strings.Index(f.source, e.old)
	for _, d := range f.parsed.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || at < f.at(fn.Body.Pos()) || at+len(e.old) > f.at(fn.End()) {
			continue
		}
		if f.copies[fn] == nil {
			f.copies[fn] = map[int]string{}
		}
		if f.copies[fn][mutant] == "" {
			f.copies[fn][mutant] = f.source[f.at(fn.Pos()):f.at(fn.Name.Pos())] + copyName(fn, mutant) + f.source[f.at(fn.Name.End()):f.at(fn.End())]
		}
		f.copies[fn][mutant] = strings.Replace(f.copies[fn][mutant], e.old, e.new, 1)
		return
	}
	t.Fatalf("%s: no function has %s", e.file, e.old)
}

func copyName(fn *ast.FuncDecl, mutant int) string {
	return fmt.Sprintf("%sMutant%d", fn.Name.Name, mutant)
}

// text is the file with the copies behind it.
func (f *mutated) text() string {
	var out, copies strings.Builder
	done := 0
	for _, d := range f.parsed.Decls {
		fn, _ := d.(*ast.FuncDecl)
		if len(f.copies[fn]) == 0 {
			continue
		}
		body := f.at(fn.Body.Lbrace) + 1
		out.WriteString(f.source[done:body])
		done = body
		for mutant, text := range f.copies[fn] {
			fmt.Fprintf(&out, " if wantedMutant == %d { %s }; ", mutant, call(fn, mutant))
			fmt.Fprintf(&copies, "\n%s\n", text)
		}
	}
	return out.String() + f.source[done:] + copies.String()
}

// call is the call of a copy from the function itself.
func call(fn *ast.FuncDecl, mutant int) string {
	var args []string
	for _, p := range fn.Type.Params.List {
		for _, name := range p.Names {
			args = append(args, name.Name)
		}
	}
	c := fmt.Sprintf("%s(%s)", copyName(fn, mutant), strings.Join(args, ", "))
	if fn.Recv != nil {
		c = fn.Recv.List[0].Names[0].Name + "." + c
	}
	if fn.Type.Results == nil {
		return c + "; return"
	}
	return "return " + c
}
