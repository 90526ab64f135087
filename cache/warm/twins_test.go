package warm

import (
	"fmt"
	"strings"
	"testing"
)

// Entries that have one name in the caches are no two entries, however they are written.
func TestTwins(t *testing.T) {
	sum := "@sha256:" + strings.Repeat("0", 64)
	for _, c := range []struct {
		first, second string
		want          string // of the error, "" for none
	}{
		{`ref = "docker://r.example/a"`, `ref = "docker://r.example/a:latest"`, `ref = "docker://r.example/a:latest": has the same name in the caches as the image in line 4`},
		{`ref = "docker://R.example/a:1"`, `ref = "oras://r.example/a:1"`, "has the same name"},
		{`ref = "docker://docker.io/a"`, `ref = "docker://index.docker.io/library/a:latest"`, "has the same name"},
		{`ref = "docker://a"`, `ref = "docker://a:latest"`, "has the same name"},
		{`ref = "docker://r.example/a:1` + sum + `"`, `ref = "docker://r.example/a` + sum + `"`, "has the same name"},
		{`ref = "docker://r.example:5000/a:1"`, "ref = \"/x.sif\"\nname = \"r.example:5000/a:1\"", `name = "r.example:5000/a:1": has the same name in the caches as the image in line 4`},
		{"ref = \"/x.sif\"\nname = \"a\"", "ref = \"/y.sif\"\nname = \"docker.io/library/a:latest\"", "has the same name"},
		{`ref = "/x/tool.sif"`, `ref = "/y/tool.sif"`, "has the same name"},
		{"ref = \"docker://r.example/a\"\ntags = \"25.*\"", `ref = "docker://r.example/a:25.10"`, "is one of those that the tags in line 4 match"},
		{`ref = "docker://r.example/a:25.10"`, "ref = \"docker://r.example/a\"\ntags = \"25.*\"", "is one of those that the tags in line 7 match"},
		{"ref = \"docker://r.example/a\"\ntags = \"25.*\"", `ref = "docker://r.example/a:24.1"`, ""},
		{"ref = \"docker://r.example/a\"\ntags = \"25.*\"", `ref = "docker://r.example/a"`, ""},
		{"ref = \"docker://r.example/a\"\ntags = \"*\"", "ref = \"docker://r.example/a:25.10\"\nname = \"pinned\"", ""},
		{"ref = \"docker://r.example/a\"\ntags = \"1.*\"", "ref = \"docker://r.example/a\"\ntags = \"2.*\"", ""},
		{`ref = "docker://a"`, `ref = "docker://docker.io/library/a"`, ""}, // registries.conf decides
		{`ref = "docker://r.example/a:1"`, `ref = "docker://s.example/a:1"`, ""},
		{`ref = "docker://localhost/a:1"`, `ref = "docker://localhost:5000/a:1"`, ""},
		{`ref = "oci:/x/tool.sif"`, `ref = "/y/tool.sif"`, ""},
		{`ref = "/x/tool.tar"`, `ref = "/y/tool.tar"`, ""}, // what is in them decides
	} {
		text := fmt.Sprintf("[nodes.n]\nlist = \"n1\"\n[[image]]\n%s\nnodes = [\"n\"]\n[[image]]\n%s\nnodes = [\"n\"]\n", c.first, c.second)
		_, err := Parse([]byte(text))
		switch {
		case err == nil && c.want == "":
		case err == nil || c.want == "":
			t.Errorf("%s\n%s\n%v", c.first, c.second, err)
		default:
			if got := mistakes(t, err); len(got) != 1 || !strings.Contains(got[0], c.want) || !strings.HasPrefix(got[0], "line ") {
				t.Errorf("%s\n%s\n%q", c.first, c.second, got)
			}
		}
	}
}
