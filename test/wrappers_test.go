package test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"strings"
	"testing"
	"testing/fstest"
)

// findWrappers names the types of the program that embed a Sink or Source of the ring. What such a
// value is beside that, the ring cannot see any more: it would not replay, keep parts or say what it
// switches, and nothing would tell.
func findWrappers(root fs.FS) (found []string, files int, err error) {
	err = fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != "." && d.Name()[0] == '.':
			return fs.SkipDir
		case d.IsDir() || path.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		text, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, text, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		files++
		ast.Inspect(file, func(n ast.Node) bool {
			s, ok := n.(*ast.StructType)
			if !ok {
				return true
			}
			for _, f := range s.Fields.List {
				what := ""
				switch t := f.Type.(type) {
				case *ast.Ident:
					if file.Name.Name == "ring" {
						what = t.Name
					}
				case *ast.SelectorExpr:
					if x, ok := t.X.(*ast.Ident); ok && x.Name == "ring" {
						what = t.Sel.Name
					}
				}
				if f.Names == nil && (what == "Sink" || what == "Source") {
					found = append(found, fmt.Sprintf("%s embeds a %s", name, what))
				}
			}
			return true
		})
		return nil
	})
	return found, files, err
}

func TestNoWrappers(t *testing.T) {
	found, files, err := findWrappers(os.DirFS(".."))
	if err != nil || files < 100 {
		t.Fatalf("%d files were looked at: %v", files, err)
	}
	for _, w := range found {
		t.Errorf("%s: what it adds is lost; embed the concrete type", w)
	}
}

func TestFindWrappers(t *testing.T) {
	for text, want := range map[string]bool{
		"package main; type w struct { ring.Sink }":                  true,
		"package main; type w struct { ring.Source; n int }":         true,
		"package main; func f() { _ = struct{ ring.Sink }{} }":       true,
		"package ring; type w struct { Sink }":                       true,
		"package main; type w struct { sink ring.Sink }":             false,
		"package main; type w struct { *raw.Target }":                false,
		"package oci; type w struct { Source }":                      false,
		"package ring; type w struct { Keeper; Preparer; io.Closer}": false,
	} {
		found, _, err := findWrappers(fstest.MapFS{"a.go": {Data: []byte(text)}})
		if err != nil || (len(found) > 0) != want {
			t.Errorf("%s: found %v, %v", text, found, err)
		}
	}
}
