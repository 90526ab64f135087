package e2e

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/test/netns"
)

// makeTree makes a directory of files, links and hard links that all have word in them.
func makeTree(t *testing.T, dir, word string) {
	t.Helper()
	var errs []error
	for i := range 12 {
		sub := filepath.Join(dir, fmt.Sprint("dir", i), word)
		errs = append(errs, os.MkdirAll(sub, 0o750))
		for k := range 20 {
			text := strings.Repeat(fmt.Sprint(word, i, k), 1+k*k*10)
			errs = append(errs, os.WriteFile(filepath.Join(sub, fmt.Sprint("file", k)), []byte(text), 0o640))
		}
		errs = append(errs, os.Link(filepath.Join(sub, "file7"), filepath.Join(sub, "hard")), os.Symlink(word, filepath.Join(sub, "link")),
			os.Lchown(filepath.Join(sub, "file3"), 7+i, 9), os.Chtimes(sub, time.Time{}, time.Unix(int64(i), 5)))
	}
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// treeSum is a sum of all names, modes, times and bytes below a directory.
func treeSum(t *testing.T, dir string) string {
	t.Helper()
	sum := sha256.New()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		fmt.Fprintf(sum, "%q %v %d %d %d\n", strings.TrimPrefix(path, dir), info.Mode(), info.ModTime().UnixNano(), st.Uid, st.Gid)
		if !info.Mode().IsRegular() {
			return nil
		}
		b, err := os.ReadFile(path)
		sum.Write(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sum.Sum(nil))
}

// Whenever a node is killed while a directory is replaced, it has the old one or the new one, and so have all others. The
// next push leaves nothing beside it.
func TestTreeKilled(t *testing.T) {
	ctx := need(t, 3*time.Minute)
	if _, err := exec.LookPath("rsync"); err != nil {
		t.Fatal(err)
	}
	t.Setenv("XDG_CACHE_HOME", t.TempDir()) // where the server keeps what it has sent
	r := newRig(t, ctx, netns.Config{Nodes: 4})
	for _, n := range r.nodes {
		n.setPolicy(fmt.Sprintf("[[output]]\ndir = %q\noverwrite = true\ndirectories = true\n[data]\nplain = true\n", r.data))
	}
	r.start()
	trees := []string{filepath.Join(r.dir, "one"), filepath.Join(r.dir, "two")}
	for i, dir := range trees {
		makeTree(t, dir, []string{"one", "second"}[i])
	}
	sums := []string{treeSum(t, trees[0]), treeSum(t, trees[1])}
	begin := func(k int) *push {
		return r.startPush("raw", "--input", trees[k%2]+"/", "--output", r.data+"/tree", "--data", "plain", "--rate", "20M")
	}
	res := begin(0).wait()
	r.want(res, 0, "committed")
	whole := res.took
	const moments = 20 // two in each push
	for k := 1; k <= moments/2; k++ {
		p := begin(k)
		victims := []*node{r.killAt(p, whole*time.Duration(2*k-1)/moments, 2*k-1), r.killAt(p, whole*time.Duration(2*k)/moments, 2*k)}
		if res := p.wait(); res.code != 0 && res.code != 3 {
			t.Errorf("push %d: exit status %d\n%s", k, res.code, res.output)
		}
		for i, n := range r.nodes {
			got := treeSum(t, n.path("tree"))
			if got != sums[0] && got != sums[1] {
				t.Errorf("push %d: node %d has neither tree", k, i)
			}
			if !slices.Contains(victims, n) && got != sums[k%2] {
				t.Errorf("push %d: node %d, which was not killed, has the old tree", k, i)
			}
		}
		for _, n := range victims {
			n.start()
		}
	}
	if res := begin(1).wait(); res.code != 0 {
		t.Fatalf("exit status %d\n%s", res.code, res.output)
	}
	r.sameAsTree(trees[1])
	// Nodes that hold the directory have nothing to do, and one that lacks it gets it.
	if err := os.RemoveAll(r.nodes[2].path("tree")); err != nil {
		t.Fatal(err)
	}
	res = begin(1).wait()
	r.want(res, 0, "held", "held", "committed", "held")
	if treeSum(t, r.nodes[2].path("tree")) != sums[1] {
		t.Error("the node that lacked it has something else")
	}
}

// killAt kills a node, the n-th in turn, so long after a push has begun.
func (r *rig) killAt(p *push, after time.Duration, n int) *node {
	r.t.Helper()
	select {
	case <-time.After(time.Until(p.begin.Add(after))):
	case <-r.ctx.Done():
		r.t.Fatal(r.ctx.Err())
	}
	victim := r.nodes[n%len(r.nodes)]
	victim.daemon.Kill()
	return victim
}

// sameAsTree fails for each node where rsync would change anything to make its tree like dir, or where anything is beside it.
func (r *rig) sameAsTree(dir string) {
	r.t.Helper()
	for i, n := range r.nodes {
		out, err := exec.CommandContext(r.ctx, "rsync", "-aHAXni", "--delete", "--checksum", dir+"/", n.path("tree")+"/").CombinedOutput()
		if err != nil || len(out) > 0 {
			r.t.Errorf("node %d: rsync would change, %v\n%s", i, err, out)
		}
		n.empty("tree")
	}
}
