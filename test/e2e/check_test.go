package e2e

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/test/netns"
)

// --check tells what a push would do, and leaves no trace of having asked.
func TestCheck(t *testing.T) {
	ctx := need(t, time.Minute)
	r := newRig(t, ctx, netns.Config{Nodes: 4})
	full, closed, absent := r.nodes[1], r.nodes[2], r.nodes[3]
	full.Mounts = []netns.Mount{netns.Tmpfs(r.data, 1<<20)}
	closed.setPolicy("")
	r.start()
	absent.kill()
	sent := makeFile(t, filepath.Join(r.dir, "sent"), 8_000_000)
	before := make([]string, len(r.nodes))
	for i, n := range r.nodes {
		before[i] = tree(t, filepath.Dir(n.own))
	}
	received, err := r.nodes[0].Traffic(ctx)
	if err != nil {
		t.Fatal(err)
	}

	res := r.push("raw", "--input", sent, "--output", r.data+"/file", "--check")
	r.want(res, 3, "pending", "failed", "refused", "unreachable")
	for _, line := range []string{
		fmt.Sprintf("would be served  %s  8.00 MB to move, ", r.nodes[0].Addr),
		"1 of 4 nodes would be served, 0 hold it; nothing was moved",
		"to move: 8.00 MB over the ring, 8.00 MB of it from here",
		fmt.Sprintf("the speed of eth0 towards %s", r.nodes[0].Addr),
	} {
		if !strings.Contains(res.output, line) {
			t.Errorf("does not say %q:\n%s", line, res.output)
		}
	}
	for i, n := range r.nodes {
		if after := tree(t, filepath.Dir(n.own)); after != before[i] {
			t.Errorf("%s: was\n%s\nis\n%s", n.Name, before[i], after)
		}
	}
	after, err := r.nodes[0].Traffic(ctx)
	if moved := after.Received - received.Received; err != nil || moved > 100_000 {
		t.Errorf("%d bytes moved to the node, %v", moved, err)
	}
	// Who was asked is free for the transfer itself.
	r.want(r.push("raw", "--input", sent, "--output", r.data+"/file"), 3, "committed", "failed", "refused", "unreachable")
	r.same(sent, "file", r.nodes[0])
}

// tree lists everything below dir, files with their size and time of change. A directory's
// time tells of a file that came and went, which is no trace.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			fmt.Fprintln(&b, path)
			return nil
		}
		info, err := d.Info()
		if err == nil {
			fmt.Fprintln(&b, path, info.Size(), info.ModTime())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
