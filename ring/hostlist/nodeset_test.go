package hostlist

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// nodeset returns what ClusterShell's nodeset makes of args.
func nodeset(t *testing.T, args ...string) (string, error) {
	t.Helper()
	out, err := exec.Command("nodeset", args...).Output()
	return strings.TrimSpace(string(out)), err
}

func needNodeset(t *testing.T) {
	if _, err := exec.LookPath("nodeset"); err != nil {
		if os.Getenv("DOLLY_IMG_COUNTERPARTS") == "1" {
			t.Fatal("counterpart missing: nodeset (package clustershell)")
		}
		t.Skip("counterpart missing: nodeset (package clustershell)")
	}
}

// What both read, both read alike; what it refuses in a range, we refuse.
func TestExpandLikeNodeset(t *testing.T) {
	needNodeset(t)
	rng := rand.New(rand.NewPCG(3, 4))
	exprs := []string{
		"a,b,node[001-128]", "r[1-2]n[01-04]", "n[1-9/2]", "n[08-11]", "n[099-101]", "n[99-101]", "n[0-3]", "n[00-03]", "n[7]",
		"10.0.0.[1-9]", "n[1-3]-ib", "[1-3]", "n[1-2]x[3,5-6]y", "n[1-3]5", "5[1-3]", "n[1-20/5,30]", "n[9,09]",
		"n[001-3]", "n[8-011]", "n[01-010]", "n[5-1]", "n[1-", "n[]", "n[a-b]", "n[1-9/0]", "n[0x1-3]",
	}
	for range 4 { // a start of nodeset takes a third of a second of a core
		exprs = append(exprs, Fold(rangesOnly(rng)))
	}
	for _, expr := range exprs {
		theirs, theirErr := nodeset(t, "-e", expr)
		ours, ourErr := Parse([]string{expr}, Options{})
		if (theirErr == nil) != (ourErr == nil) {
			t.Errorf("%q: nodeset %v, we %v", expr, theirErr, ourErr)
			continue
		}
		want := strings.Fields(theirs)
		slices.Sort(want)
		slices.Sort(ours)
		if ourErr == nil && !slices.Equal(ours, want) {
			t.Errorf("%q:\nnodeset %q\nwe      %q", expr, want, ours)
		}
	}
}

// What nodeset prints is a list of ours, on the command line and in a file: expanded on
// one line, folded, and of a group.
func TestReadsNodeset(t *testing.T) {
	needNodeset(t)
	config := t.TempDir()
	dir := filepath.Join(config, "clustershell")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"groups.conf": "[Main]\ndefault: site\nautodir: " + dir + "\n",
		"site.yaml":   "site:\n  rack1: 'node[01-03],login'\n  gpu_a: 'g[1-2]n[1-2]'\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("XDG_CONFIG_HOME", config)
	for _, c := range []struct{ set, want string }{
		{"node[01-03,20],login", "login node01 node02 node03 node20"},
		{"r[1-2]n[1-2]-ib", "r1n1-ib r1n2-ib r2n1-ib r2n2-ib"},
		{"@rack1", "login node01 node02 node03"},
		{"@*", "g1n1 g1n2 g2n1 g2n2 login node01 node02 node03"},
	} {
		for _, flag := range []string{"-e", "-f"} {
			printed, err := nodeset(t, flag, c.set)
			if err != nil {
				t.Fatal(err)
			}
			for _, expr := range []string{printed, "@file"} {
				names, err := Parse([]string{expr}, Options{Open: files{"file": printed + "\n"}.open})
				slices.Sort(names)
				if got := strings.Join(names, " "); err != nil || got != c.want {
					t.Errorf("nodeset %s %s printed %q, which as %s is %q, %v", flag, c.set, printed, expr, got, err)
				}
			}
		}
	}
	// It prints nothing of a group that does not exist, and exits 0.
	printed, err := nodeset(t, "-f", "@nobody")
	if err != nil {
		t.Fatal(err)
	}
	if names, err := Parse([]string{"n1", printed}, Options{}); err == nil {
		t.Errorf("a list that nodeset left empty was taken: %q", names)
	}
}

// Each reads what the other folds; on grids and single ranges the texts are equal.
func TestFoldLikeNodeset(t *testing.T) {
	needNodeset(t)
	for _, names := range []string{
		"n1 n2 n4 n10 n01 n02", "r1n1 r1n2 r2n1 r2n2", "r1n1 r1n2 r2n1", "n1-ib n2-ib", "10.0.0.1 10.0.0.2", "n099 n100 n101",
		"n99 n100", "n9 n09 n10", "n0 n00 n000", "a1b1 a1b2 a2b1 a2b2 a3b7", "x", "n8 n9 n10 n11", "n08 n09 n10 n11",
	} {
		want, err := nodeset(t, append([]string{"-f"}, strings.Fields(names)...)...)
		if err != nil {
			t.Fatal(err)
		}
		if got := Fold(strings.Fields(names)); got != want {
			t.Errorf("Fold(%s) = %s, nodeset %s", names, got, want)
		}
	}
	rng := rand.New(rand.NewPCG(5, 6))
	for range 4 { // a start of nodeset takes a third of a second of a core
		names := rangesOnly(rng)
		theirs, err := nodeset(t, append([]string{"-f"}, names...)...)
		if err != nil {
			t.Fatal(err)
		}
		back, err := Parse([]string{theirs}, Options{})
		if err != nil {
			t.Errorf("nodeset's %q: %v", theirs, err)
			continue
		}
		slices.Sort(names)
		slices.Sort(back)
		if !slices.Equal(names, back) {
			t.Errorf("nodeset folded %q to %q, which we read as %q", names, theirs, back)
		}
	}
}

// rangesOnly is randomNames without what nodeset does not know.
func rangesOnly(rng *rand.Rand) []string {
	return append(slices.DeleteFunc(randomNames(rng), func(s string) bool { return strings.Contains(s, ":") }), "last")
}
