package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/test/netns"
)

// hostile puts a hostile node in the place of this one.
func (n *node) hostile(mode string) {
	n.rig.t.Helper()
	p, err := netns.Start(n.Command(n.rig.ctx, os.Args[0], "hostile", fmt.Sprintf("%s:9998", n.Addr), n.keys, mode))
	if err == nil {
		_, err = p.Line(n.rig.ctx, "listening")
	}
	if err != nil {
		n.rig.t.Fatal(err)
	}
	n.daemon = p
}

// A hostile node with a valid key, in the middle or at an end of the chain, costs the others a time that is bounded, and
// nothing else: all of them commit the right bytes, and none of them is called at fault.
func TestHostileNode(t *testing.T) {
	const silent = 6 * time.Second // a node that stands still costs as much
	for _, c := range []struct {
		mode   string
		within time.Duration
		state  string // of the hostile node's row
	}{
		{"is good", 3 * time.Second, "committed"}, // or the others would not mean what they say
		{"takes nothing", 2 * silent, "failed"},
		{"says only up", 2 * silent, ""},
		{"counts durable", 2 * silent, ""},
		{"sends nothing", 2 * silent, ""},
		{"claims a byte a second", 2 * silent, "failed"},
		{"says limit", 2 * silent, "failed"},
		{"hangs up", 2 * silent, ""},
		{"says no NEED", 2 * silent, "failed"},
		{"does not dial", 2 * silent, ""},
	} {
		t.Run(c.mode, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			ctx := need(t, 2*time.Minute)
			r := newRig(t, ctx, netns.Config{Nodes: 5})
			for i, n := range r.nodes {
				if i == 1 {
					n.hostile(c.mode)
				} else {
					n.start()
				}
			}
			sent := makeFile(t, filepath.Join(r.dir, "sent"), 24<<20)
			p := r.startPush("raw", "--input", sent, "--output", r.data+"/file", "--json")
			res := p.wait()
			if res.report == nil {
				t.Fatalf("no report\n%s", res.output)
			}
			for i, row := range res.report.Nodes {
				if i != 1 && row.State != "committed" {
					t.Errorf("row %+v\n%s", row, res.output)
				}
				if i == 1 && c.state != "" && row.State != c.state {
					t.Errorf("the hostile node's row: %+v", row)
				}
			}
			r.same(sent, "file", r.nodes[0], r.nodes[2], r.nodes[3], r.nodes[4])
			if res.took > c.within+slack() {
				t.Errorf("took %v, want at most %v", res.took, c.within)
			}
			t.Logf("%s: %v; %+v", c.mode, res.took.Round(100*time.Millisecond), res.report.Nodes[1])
		})
	}
}
