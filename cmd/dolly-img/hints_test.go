package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/dolly-img/dolly-img/ring/errkind"
)

// TestHints: every kind of error that the sources name has a hint, and every hint has a kind.
func TestHints(t *testing.T) {
	named := kindsIn(t, "../..")
	if len(named) < 50 {
		t.Fatalf("only %d kinds were found", len(named))
	}
	for kind, at := range named {
		if hints[errkind.Kind(kind)] == "" {
			t.Errorf("%s: kind %q has no hint", at, kind)
		}
	}
	for kind, hint := range hints {
		if named[string(kind)] == "" {
			t.Errorf("hint %q of kind %q is for no error", hint, kind)
		}
		if text := adviceOn(kind, "one", "two", "three"); strings.Contains(text, "%!") && !strings.Contains(text, "%!(EXTRA") {
			t.Errorf("hint %q: %s", kind, text)
		}
	}
}

// kindsIn is where the sources below dir, but for tests, name kinds of errors: what Errorf and About of package errkind
// are given, what becomes a Kind, and what methods named Kind return.
func kindsIn(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := token.NewFileSet()
	named := map[string]string{}
	note := func(e ast.Expr) {
		if lit, ok := e.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if kind, err := strconv.Unquote(lit.Value); err == nil && kind != "" {
				named[kind] = files.Position(lit.Pos()).String()
			}
		}
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				f, ok := n.Fun.(*ast.SelectorExpr)
				if !ok || len(n.Args) == 0 {
					break
				}
				if pkg, ok := f.X.(*ast.Ident); ok && pkg.Name == "errkind" && slices.Contains([]string{"Errorf", "About", "Kind"}, f.Sel.Name) {
					note(n.Args[0])
				}
			case *ast.FuncDecl:
				if n.Name.Name != "Kind" || n.Recv == nil {
					break
				}
				ast.Inspect(n, func(n ast.Node) bool {
					if r, ok := n.(*ast.ReturnStmt); ok && len(r.Results) == 2 {
						note(r.Results[0])
					}
					return true
				})
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return named
}
