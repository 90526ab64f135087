package coordinator

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// owners are the types whose fields only their own methods may change.
var owners = []string{"contact", "holdings", "feed", "tries", "reach", "taken", "progress", "pace", "blame", "commit", "compared", "overwriting", "speeds", "search"}

// What a type promises of its fields can be seen in its methods, because nobody else changes them.
func TestOwners(t *testing.T) {
	fset := token.NewFileSet()
	for _, broken := range changedByOthers(parseDir(t, fset, "."), fset) {
		t.Error(broken)
	}
}

// The test above finds what it looks for.
func TestOwnersFinds(t *testing.T) {
	const code = `package p
type feed struct{ state int; list []int; inner struct{ n int } }
type node struct{ feed feed }
func (f *feed) own() { f.state = 1 }
func set(n *node)     { n.feed.state = 2 }
func count(n *node)   { n.feed.inner.n++ }
func pointer(n *node) *int { return &n.feed.state }
func element(n *node) { n.feed.list[0] = 3 }
func local(n *node)   { f := &n.feed; f.state = 4 }
func whole(n *node)   { n.feed = feed{} }
func read(n *node) int { return n.feed.state }
`
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "p.go", code, 0)
	if err != nil {
		t.Fatal(err)
	}
	got := changedByOthers([]*ast.File{f}, fset)
	if want := []string{"set", "count", "pointer", "element", "local"}; len(got) != len(want) {
		t.Errorf("found %q, want one in each of %q", got, want)
	}
}

// parseDir reads the code of a package, without its tests.
func parseDir(t *testing.T, fset *token.FileSet, dir string) (files []*ast.File) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(names) == 0 {
		t.Fatalf("%d files in %s, %v", len(names), dir, err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	return files
}

// nothing imports every package as an empty one: the types that are looked at are in the code itself.
type nothing struct{}

func (nothing) Import(path string) (*types.Package, error) {
	p := types.NewPackage(path, path[strings.LastIndex(path, "/")+1:])
	p.MarkComplete()
	return p, nil
}

// changedByOthers lists where a field of an owner is changed, or its address taken, by other code than the
// owner's methods. To replace an owner as a whole is to make it anew, which everybody may.
func changedByOthers(files []*ast.File, fset *token.FileSet) (all []string) {
	info := &types.Info{Selections: map[*ast.SelectorExpr]*types.Selection{}, Defs: map[*ast.Ident]types.Object{}}
	conf := types.Config{Importer: nothing{}, Error: func(error) {}}
	conf.Check("p", fset, files, info)
	for _, f := range files {
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Body == nil {
				continue
			}
			self := ""
			if fn.Recv != nil {
				self = nameOf(info.Defs[fn.Name].(*types.Func).Signature().Recv().Type())
			}
			change := func(e ast.Expr) {
				if owner := ownerOf(info, e); owner != "" && owner != self {
					all = append(all, fmt.Sprintf("%v: %s changes a field of %s", fset.Position(e.Pos()), fn.Name.Name, owner))
				}
			}
			ast.Inspect(fn.Body, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.AssignStmt:
					for _, e := range n.Lhs {
						change(e)
					}
				case *ast.IncDecStmt:
					change(n.X)
				case *ast.UnaryExpr:
					if n.Op == token.AND {
						change(n.X)
					}
				}
				return true
			})
		}
	}
	return all
}

// ownerOf is the owner that a changed expression is a part of.
func ownerOf(info *types.Info, e ast.Expr) string {
	for {
		switch x := e.(type) {
		case *ast.IndexExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.SelectorExpr:
			if s := info.Selections[x]; s != nil && slices.Contains(owners, nameOf(s.Recv())) {
				return nameOf(s.Recv())
			}
			e = x.X
		default:
			return ""
		}
	}
}

func nameOf(t types.Type) string {
	if p, ok := t.(*types.Pointer); ok {
		t = p.Elem()
	}
	if n, ok := t.(*types.Named); ok {
		return n.Obj().Name()
	}
	return ""
}
