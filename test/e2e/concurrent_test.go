package e2e

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/test/netns"
)

// Two pushes of one image at once, each with an output of its own: both commit, and the caches
// hold it once, whole.
func TestSameImageTwice(t *testing.T) {
	together(t)
	ctx := need(t, 2*time.Minute, "mksquashfs", busybox)
	r := newRig(t, ctx, netns.Config{Nodes: 3})
	r.start()
	image := makeSIF(t, "busybox.sif", 40<<20)
	var pushes []*push
	for _, name := range []string{"a.sif", "b.sif"} {
		pushes = append(pushes, r.startPush("push", image, "--output", r.data+"/"+name))
	}
	for i, p := range pushes {
		res := p.wait()
		r.want(res, 0, "committed")
		r.same(image, []string{"a.sif", "b.sif"}[i], r.nodes...)
		if res.report != nil {
			t.Logf("%+v", res.report.Nodes)
		}
	}
	for _, n := range r.nodes {
		n.empty("a.sif", "b.sif")
		if code, out := r.run(n.Host, "cache", "verify", "--cache", n.cache); code != 0 {
			t.Errorf("%s: cache verify: %d: %s", n.Name, code, out)
		}
	}
}

// Two pushes of different files to one target at once, while a third goes elsewhere: each row
// of the two is committed or refused as busy, and each node has one of the files, whole, of a
// push that says so.
func TestOneTargetTwice(t *testing.T) {
	together(t)
	ctx := need(t, 2*time.Minute)
	r := newRig(t, ctx, netns.Config{Nodes: 3})
	r.start()
	var files []string
	var pushes []*push
	for _, name := range []string{"one", "two", "other"} {
		file := makeFile(t, filepath.Join(r.dir, name), 60<<20)
		target := "target"
		if name == "other" {
			target = name
		}
		files = append(files, file)
		pushes = append(pushes, r.startPush("raw", "--input", file, "--output", r.data+"/"+target))
	}
	said := make([][]string, len(r.nodes)) // sums that were committed
	for k, p := range pushes {
		res := p.wait()
		if k == 2 {
			r.want(res, 0, "committed")
			r.same(files[2], "other", r.nodes...)
			continue
		}
		if res.report == nil {
			t.Fatalf("no report\n%s", res.output)
		}
		for i, row := range res.report.Nodes {
			switch {
			case row.State == "committed":
				said[i] = append(said[i], sum(t, files[k]))
			case row.State != "refused" || !strings.Contains(row.Reason, "another transfer"):
				t.Errorf("row %+v", row)
			}
		}
	}
	for i, n := range r.nodes {
		if got := sum(t, n.path("target")); !slices.Contains(said[i], got) {
			t.Errorf("%s holds %s, rows say %v", n.Name, got, said[i])
		}
		t.Logf("%s: committed %d times", n.Name, len(said[i]))
		n.empty("target", "other")
	}
}
