// Package test holds what looks at the project from outside: its shape, here, and the
// shipped binary, in the directories below.
package test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/dolly-img/dolly-img"

// pkg is what "go list -json" says of a package, as far as the rules need it.
type pkg struct {
	ImportPath string
	Imports    []string // of its code
	Deps       []string // the same, and what those import, and so on
	// Of its tests, which may use what its code may not.
	TestImports, XTestImports []string
}

// An importRule says why a package may not have an import, or "".
type importRule struct {
	name  string
	check func(p pkg) (broken string)
}

// leaves are packages that all of ours may import, and that import none of ours.
var leaves = []string{module + "/cache/durable", module + "/ring/bytesize", module + "/ring/errkind", module + "/ring/leaf", module + "/ring/printable", module + "/ring/tomlkeys"}

var importRules = []importRule{
	{"leaves import nothing of ours", func(p pkg) string {
		if !slices.Contains(leaves, p.ImportPath) {
			return ""
		}
		return first(p.Deps, func(dep string) bool { return tree(dep) != "" })
	}},
	{"ring, oci, sif and cache are independent", func(p pkg) string {
		trees := []string{"ring", "oci", "sif", "cache"}
		own := tree(p.ImportPath)
		if !slices.Contains(trees, own) {
			return ""
		}
		return first(p.Deps, func(dep string) bool {
			other := tree(dep)
			warm := under(p.ImportPath, module+"/cache/warm") && other == "ring"
			return slices.Contains(trees, other) && other != own && !warm && !slices.Contains(leaves, dep)
		})
	}},
	{"nothing imports cmd or test", func(p pkg) string {
		return first(p.Imports, func(dep string) bool {
			t := tree(dep)
			return (t == "cmd" || t == "test") && t != tree(p.ImportPath)
		})
	}},
	{"net/http is not in ring", func(p pkg) string {
		if tree(p.ImportPath) != "ring" {
			return ""
		}
		return first(p.Deps, func(dep string) bool { return under(dep, "net/http") })
	}},
	{"cobra is only in cmd", only("cmd", "github.com/spf13/cobra", "github.com/spf13/pflag")},
	{"containers/image is only in oci", only("oci", "github.com/containers/image")},
	{"sylabs/sif is only in sif", only("sif", "github.com/sylabs/sif")},
	{"the state machines of ring are pure", func(p pkg) string {
		ring := module + "/ring/internal/"
		if !slices.Contains([]string{ring + "coordinator", ring + "member", ring + "wire"}, p.ImportPath) {
			return ""
		}
		impure := first(p.Imports, func(dep string) bool {
			std, _, _ := strings.Cut(dep, "/")
			switch {
			case strings.Contains(std, "."):
				return !under(dep, module) && !under(dep, "github.com/opencontainers")
			case std == "net" || std == "os" || std == "syscall" || std == "unsafe" || std == "C":
				return true
			}
			return under(dep, "crypto/tls")
		})
		if impure != "" {
			return impure
		}
		return first(p.Deps, func(dep string) bool {
			return tree(dep) != "" && dep != ring+"wire" && !slices.Contains(leaves, dep) || dep == module+"/cache/durable"
		})
	}},
	{"test drives from outside", func(p pkg) string {
		if tree(p.ImportPath) != "test" {
			return ""
		}
		all := slices.Concat(p.Deps, p.Imports, p.TestImports, p.XTestImports)
		return first(all, func(dep string) bool {
			t := tree(dep)
			return t != "" && t != "test"
		})
	}},
}

func only(where string, paths ...string) func(pkg) string {
	return func(p pkg) string {
		if tree(p.ImportPath) == "" || tree(p.ImportPath) == where {
			return ""
		}
		return first(p.Imports, func(dep string) bool {
			return slices.ContainsFunc(paths, func(path string) bool { return under(dep, path) })
		})
	}
}

// tree is the top-level folder that a package of ours is in, and "" for others.
func tree(path string) string {
	rest, ok := strings.CutPrefix(path, module+"/")
	if !ok {
		return ""
	}
	top, _, _ := strings.Cut(rest, "/")
	return top
}

func under(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

func first(deps []string, bad func(string) bool) string {
	if i := slices.IndexFunc(deps, bad); i >= 0 {
		return deps[i]
	}
	return ""
}

func checkImports(pkgs []pkg) (broken []string) {
	for _, p := range pkgs {
		for _, r := range importRules {
			if dep := r.check(p); dep != "" {
				broken = append(broken, fmt.Sprintf("%s: %s imports %s", r.name, p.ImportPath, dep))
			}
		}
	}
	return broken
}

func TestImports(t *testing.T) {
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Imports,Deps,TestImports,XTestImports", "./...")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("%v: %s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	var pkgs []pkg
	seen := map[string]bool{}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := d.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
		seen[tree(p.ImportPath)] = true
	}
	for _, top := range []string{"ring", "cmd", "test"} {
		if !seen[top] {
			t.Errorf("go list names no package in %s: nothing was checked", top)
		}
	}
	for _, b := range checkImports(pkgs) {
		t.Error(b)
	}
}

// Every rule finds what it forbids, and leaves alone what looks like it.
func TestImportRules(t *testing.T) {
	const image, sif, cobra = "github.com/containers/image/v5/docker", "github.com/sylabs/sif/v2/pkg/sif", "github.com/spf13/cobra"
	deps := func(path string, deps ...string) pkg {
		return pkg{ImportPath: module + "/" + path, Imports: deps, Deps: deps}
	}
	for _, tt := range []struct {
		p    pkg
		want string // the broken rule
	}{
		{deps("ring/raw", module+"/cache"), "ring, oci, sif and cache are independent"},
		{deps("cache", module+"/ring"), "ring, oci, sif and cache are independent"},
		{deps("cache/mirror", module+"/ring"), "ring, oci, sif and cache are independent"},
		{deps("oci/load", module+"/sif"), "ring, oci, sif and cache are independent"},
		{deps("cache/warm", module+"/oci"), "ring, oci, sif and cache are independent"},
		{deps("cache/warm", module+"/ring"), ""},
		{deps("ring/raw", module+"/cache/durable"), ""},
		{deps("ring/raw", module+"/cache/durable/more"), "ring, oci, sif and cache are independent"},
		{deps("cache", module+"/ring/bytesize"), ""},
		{deps("cache/durable", "golang.org/x/sys/unix"), ""},
		{deps("cache/durable", module+"/ring/bytesize"), "leaves import nothing of ours"},
		{deps("ring/bytesize", module+"/ring"), "leaves import nothing of ours"},
		{deps("cache/warmer", module+"/ring"), "ring, oci, sif and cache are independent"},
		{deps("cmd/dolly-img", module+"/ring", module+"/cache", cobra, "net/http"), ""},
		{pkg{ImportPath: module + "/cache", TestImports: []string{module + "/ring/ringtest"}}, ""},
		{deps("ring", module+"/cmd/dolly-img/internal/config"), "nothing imports cmd or test"},
		{deps("sif", module+"/test/netns"), "nothing imports cmd or test"},
		{deps("ring/identity", "net/http"), "net/http is not in ring"},
		{pkg{ImportPath: module + "/ring", Deps: []string{"net/http/httptrace"}}, "net/http is not in ring"},
		{deps("cache/mirror", "net/http"), ""},
		{deps("sif", cobra), "cobra is only in cmd"},
		{deps("cache", image), "containers/image is only in oci"},
		{deps("oci", image), ""},
		{deps("cmd/dolly-img", sif), "sylabs/sif is only in sif"},
		{deps("sif", sif), ""},
		{pkg{ImportPath: "github.com/sylabs/sif/v2/cmd/siftool", Imports: []string{cobra, sif}}, ""},
		{deps("ring/internal/coordinator", "fmt", "time", module+"/ring/internal/wire", module+"/ring/bytesize", "github.com/opencontainers/go-digest"), ""},
		{deps("ring/internal/coordinator", "net"), "the state machines of ring are pure"},
		{deps("ring/internal/coordinator", "crypto/tls"), "the state machines of ring are pure"},
		{deps("ring/internal/coordinator", module+"/ring/internal/member"), "the state machines of ring are pure"},
		{deps("ring/internal/member", "os/signal"), "the state machines of ring are pure"},
		{deps("ring/internal/member", "golang.org/x/sys/unix"), "the state machines of ring are pure"},
		{deps("ring/internal/member", module+"/ring"), "the state machines of ring are pure"},
		{deps("ring/internal/wire", "syscall"), "the state machines of ring are pure"},
		{pkg{ImportPath: module + "/ring/internal/coordinator", TestImports: []string{"os", module + "/ring/internal/member"}}, ""},
		{deps("ring/internal/relay", "net", "os"), ""},
		{deps("test/bench", module+"/ring"), "test drives from outside"},
		{pkg{ImportPath: module + "/test/e2e", XTestImports: []string{module + "/sif"}}, "test drives from outside"},
		{pkg{ImportPath: module + "/test/e2e", TestImports: []string{module + "/test/netns"}}, ""},
	} {
		broken := checkImports([]pkg{tt.p})
		switch {
		case tt.want == "" && len(broken) > 0:
			t.Errorf("%v: %v", tt.p, broken)
		case tt.want != "" && !slices.ContainsFunc(broken, func(b string) bool { return strings.HasPrefix(b, tt.want+": ") }):
			t.Errorf("%v: got %v, want %s", tt.p, broken, tt.want)
		}
	}
}
