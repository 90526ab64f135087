package ring

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Why something happened is known by its kind and its codes. The words are for people: whoever changes
// them must not change what the ring does.
func TestReasonsAreNotRead(t *testing.T) {
	fset := token.NewFileSet()
	files := 0
	for _, dir := range []string{".", "internal/coordinator", "internal/member", "internal/relay"} {
		names, err := filepath.Glob(dir + "/*.go")
		if err != nil || len(names) == 0 {
			t.Fatalf("%s: %d files, %v", dir, len(names), err)
		}
		for _, name := range names {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(fset, name, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			files++
			for _, pos := range readsReasons(f) {
				t.Errorf("%v: goes by the words of a reason", fset.Position(pos))
			}
		}
	}
	if files < 30 {
		t.Errorf("looked at %d files only", files)
	}
}

// The test above finds what it looks for.
func TestReasonsAreNotReadFinds(t *testing.T) {
	for code, want := range map[string]int{
		`strings.HasPrefix(n.note.Text, "link ")`:       1,
		`strings.Contains(err.Error(), "refused")`:      1,
		`strings.TrimSuffix(row.Reason, ".")`:           1,
		`ev.Reason == "asked"`:                          1,
		`"link " != why.String()`:                       1,
		`ev.Reason != ""`:                               0,
		`strings.Join(p.Addrs, " or ")`:                 0,
		`n.note.Kind == KindLink && why.Link == "here"`: 0,
	} {
		f, err := parser.ParseFile(token.NewFileSet(), "p.go", "package p\nvar _ = "+code, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := len(readsReasons(f)); got != want {
			t.Errorf("%s: found %d, want %d", code, got, want)
		}
	}
}

// readsReasons finds functions of package strings that are applied to a reason, and reasons that are
// compared with words.
func readsReasons(f *ast.File) (found []token.Pos) {
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			of, ok := n.Fun.(*ast.SelectorExpr)
			if ok && fmt.Sprint(of.X) == "strings" && slices.ContainsFunc(n.Args, isReason) {
				found = append(found, n.Pos())
			}
		case *ast.BinaryExpr:
			if (n.Op == token.EQL || n.Op == token.NEQ) && (isReason(n.X) && isWords(n.Y) || isReason(n.Y) && isWords(n.X)) {
				found = append(found, n.Pos())
			}
		}
		return true
	})
	return found
}

// isReason says whether an expression ends in the name of a reason, or in what makes one of an error or a cause.
func isReason(e ast.Expr) bool {
	names := []string{"reason", "why", "cause", "note", "text", "damage"}
	switch e := e.(type) {
	case *ast.Ident:
		return slices.Contains(names, strings.ToLower(e.Name))
	case *ast.SelectorExpr:
		return slices.Contains(names, strings.ToLower(e.Sel.Name))
	case *ast.CallExpr:
		m, ok := e.Fun.(*ast.SelectorExpr)
		return ok && (m.Sel.Name == "Error" || m.Sel.Name == "String" && isReason(m.X))
	}
	return false
}

func isWords(e ast.Expr) bool {
	l, ok := e.(*ast.BasicLit)
	return ok && l.Kind == token.STRING && l.Value != `""`
}
