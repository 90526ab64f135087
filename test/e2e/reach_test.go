package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/test/netns"
)

// With the port open from the server only no node reaches another. A check names them, and a push does
// not become a star: the server feeds so many as it may, and the others fail for that reason.
func TestServerOnly(t *testing.T) {
	together(t)
	ctx := need(t, 3*time.Minute)
	r := newRig(t, ctx, netns.Config{Nodes: 6})
	r.start()
	for _, n := range r.nodes {
		if err := n.OnlyFrom(ctx, r.net.Server, 9998); err != nil {
			t.Fatal(err)
		}
	}
	sent := makeFile(t, filepath.Join(r.dir, "sent"), 8<<20)
	says := func(res *result, limit time.Duration, lines ...string) {
		t.Helper()
		if res.took > limit {
			t.Errorf("took %v, want at most %v", res.took, limit)
		}
		for _, line := range lines {
			if !strings.Contains(res.output, line) {
				t.Errorf("does not say %q:\n%s", line, res.output)
			}
		}
	}
	first, second := r.nodes[0].name(), r.nodes[1].name()

	res := r.push("raw", "--input", sent, "--output", r.data+"/file", "--check")
	r.want(res, 0, "pending")
	says(res, 5*time.Second,
		"no node of 10.77.0.[2-7] can reach its neighbours in the list on port 9998 (i/o timeout)",
		"hint: open TCP port 9998 between the nodes",
		"shared by up to 5 nodes that the server would feed itself; up to 1 would fail, since --max-direct is 4")
	if n := len(res.report.Unreached); n != 10 {
		t.Errorf("the report has %d pairs, want 10: %v", n, res.report.Unreached)
	}

	res = r.push("raw", "--input", sent, "--output", r.data+"/file")
	says(res, 15*time.Second+slack(), fmt.Sprintf("the server fed 4 nodes itself: %s cannot reach %s on port 9998 (i/o timeout), and 4 more are like this; open that port between the nodes", first, second),
		"no node reaches it on port 9998 (i/o timeout), and the server feeds 4 such nodes itself already")
	states := map[string]int{}
	for _, row := range res.report.Nodes {
		states[row.State]++
	}
	if res.code != 3 || states["committed"] != 5 || states["failed"] != 1 || res.report.Direct != 4 || len(res.report.Unreached) != 5 {
		t.Errorf("exit %d, %v, direct %d, %v\n%s", res.code, states, res.report.Direct, res.report.Unreached, res.output)
	}
	for i, row := range res.report.Nodes {
		if row.State == "committed" {
			r.same(sent, "file", r.nodes[i])
		} else {
			r.nodes[i].empty()
		}
	}

	// Whoever says so gets the star.
	r.want(r.push("raw", "--input", sent, "--output", r.data+"/file", "--max-direct", "5"), 0, "committed")
	r.same(sent, "file", r.nodes...)
}

// A node that its neighbour cannot reach is fed by another one that can, and the server feeds nobody more.
func TestNeighbourUnreached(t *testing.T) {
	ctx := need(t, 3*time.Minute)
	r := newRig(t, ctx, netns.Config{Nodes: 4})
	r.start()
	for _, from := range []*node{r.nodes[1], r.nodes[2]} {
		if err := r.nodes[3].Block(ctx, from.Host); err != nil {
			t.Fatal(err)
		}
	}
	sent := makeFile(t, filepath.Join(r.dir, "sent"), 8<<20)
	res := r.push("raw", "--input", sent, "--output", r.data+"/file", "--max-direct", "0")
	r.want(res, 0, "committed")
	r.same(sent, "file", r.nodes...)
	if res.took > 8*time.Second || res.report.Direct != 0 {
		t.Errorf("took %v, the server fed %d nodes itself\n%s", res.took, res.report.Direct, res.output)
	}
	if res.sent > 12<<20 {
		t.Errorf("the server sent %d bytes", res.sent)
	}
	r.want(r.push("raw", "--input", sent, "--output", r.data+"/file", "--check"), 0, "pending")
}
