package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/test/netns"
)

// What is wrong on the command line or with the input is said in one line and a hint,
// with the right status, and nothing is left on the nodes.
func TestBadInput(t *testing.T) {
	together(t)
	ctx := need(t, time.Minute, "mksquashfs", busybox)
	r := newRig(t, ctx, netns.Config{Nodes: 2})
	r.start()
	image := makeSIF(t, "busybox.sif", 1<<20)
	content, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	file := func(name string, b []byte) string {
		path := filepath.Join(r.dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	// The first descriptor lies behind the header of 128 bytes, its offset of the data
	// 17 bytes into it.
	outside := append([]byte(nil), content...)
	copy(outside[4096+17:], "\xff\xff\xff\xff\xff\xff\xff\x7f")
	for _, tt := range []struct {
		name string
		code int
		args []string
	}{
		{"no such file", 1, []string{"push", filepath.Join(r.dir, "none.sif")}},
		{"a directory", 1, []string{"push", r.dir}},
		{"an empty file", 1, []string{"push", file("empty.sif", nil)}},
		{"truncated", 1, []string{"push", file("cut.sif", content[:len(content)-5000])}},
		{"cut in the header", 1, []string{"push", file("head.sif", content[:100])}},
		{"a descriptor that points outside", 1, []string{"push", file("outside.sif", outside)}},
		{"not an image", 1, []string{"push", file("text.sif", []byte(strings.Repeat("no image\n", 1000)))}},
		{"raw: no such file", 1, []string{"raw", "--input", filepath.Join(r.dir, "none"), "--output", r.data + "/x"}},
		{"raw: a directory", 1, []string{"raw", "--input", r.dir, "--output", r.data + "/x"}},
		{"a relative output", 2, []string{"push", image, "--output", "data/x"}},
		{"an unknown flag", 2, []string{"push", image, "--fast"}},
		{"no image", 2, []string{"push"}},
		{"a rate of nothing", 2, []string{"push", image, "--rate", "0"}},
	} {
		res := r.push(tt.args...)
		if res.code != tt.code {
			t.Errorf("%s: exit %d, want %d\n%s", tt.name, res.code, tt.code, res.output)
		}
		lines := strings.Split(strings.TrimSpace(res.output), "\n")
		t.Logf("%s: %s", tt.name, res.output)
		if !strings.HasPrefix(lines[0], "dolly-img: ") || len(lines) != 2 || !strings.HasPrefix(lines[1], "hint: ") {
			t.Errorf("%s: want one line and a hint:\n%s", tt.name, res.output)
		}
	}
	for _, n := range r.nodes {
		n.empty()
	}

	// An output that the policy does not name is the nodes' refusal.
	r.want(r.push("push", image, "--output", "/somewhere/else"), 5, "refused")
	checkNodeNames(r, image)
}

// checkNodeNames pushes to nodes with odd names. A name that does not resolve is a row. An address that is spelt in two
// ways is one node. The rows are compared in the order of their states.
func checkNodeNames(r *rig, image string) {
	r.t.Helper()
	again := r.nodes[0].Addr.String()
	for _, tt := range []struct {
		nodes string
		code  int
		rows  []string
	}{
		{again + ",no-such-host.invalid", 3, []string{"committed", "unreachable"}},
		{again + ",[::ffff:" + again + "]", 0, []string{"held"}},
	} {
		report := filepath.Join(r.dir, "rows.json")
		code, out := r.run(r.net.Server, "push", image, "--keys", r.keys, "--report", report, "--nodes", tt.nodes)
		text, err := os.ReadFile(report)
		if err != nil {
			r.t.Errorf("%s: %v\n%s", tt.nodes, err, out)
			continue
		}
		rep, err := readReport(text)
		if err != nil || code != tt.code || len(rep.Nodes) != len(tt.rows) {
			r.t.Errorf("%s: exit %d, %v\n%s", tt.nodes, code, err, out)
			continue
		}
		slices.SortFunc(rep.Nodes, func(a, b row) int { return strings.Compare(a.State, b.State) })
		for i, want := range tt.rows {
			if rep.Nodes[i].State != want {
				r.t.Errorf("%s: %+v, want %s", tt.nodes, rep.Nodes[i], want)
			}
		}
	}
}
