package e2e

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/test/netns"
)

var hostileSeeds = flag.Uint64("hostile.seeds", 1, "how many nodes with lies drawn by a seed TestHostileNode tries")

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

// A hostile node with a valid key, second of the chain, costs the others a time that is bounded, and nothing else: all of
// them commit the right bytes, and none of them is called at fault. The push ends, too. Who claims to get on by a byte a
// second is found after a minute by each of its feeders: the scenarios of the coordinator (crawls) have that, in time
// that does not pass.
func TestHostileNode(t *testing.T) {
	together(t)
	const (
		stuck = 12 * time.Second // two links are lost to who stands still
		ends  = 75 * time.Second // nobody is waited for longer who does not get on
	)
	type hostility struct {
		mode           string
		others, within time.Duration
		state          string // of the hostile node's row
	}
	cases := []hostility{
		{"says no NEED", stuck, ends, "failed"},                    // it takes a minute, so it begins first
		{"is good", 3 * time.Second, 3 * time.Second, "committed"}, // or the others would not mean what they say
		{"takes nothing", stuck, ends, "failed"},
		{"says only up", stuck, ends, ""},
		{"counts durable", stuck, ends, ""},
		{"sends nothing", stuck, ends, ""},
		{"hangs up", stuck, ends, "failed"},
		{"does not dial", stuck, ends, ""},
	}
	for seed := range *hostileSeeds { // several lies at once
		cases = append(cases, hostility{fmt.Sprint(seed + 1), 2 * stuck, 2 * ends, ""})
	}
	for _, c := range cases {
		t.Run(c.mode, func(t *testing.T) {
			together(t)
			ctx := need(t, 4*time.Minute)
			r := newRig(t, ctx, netns.Config{Nodes: 5})
			for i, n := range r.nodes {
				if i == 1 {
					n.hostile(c.mode)
				} else {
					n.start()
				}
			}
			sent := makeFile(t, filepath.Join(r.dir, "sent"), 24<<20)
			res := r.push("raw", "--input", sent, "--output", r.data+"/file", "--json")
			if res.report == nil {
				t.Fatalf("no report\n%s", res.output)
			}
			last := time.Duration(0) // when the last of the others was done
			for i, row := range res.report.Nodes {
				if i == 1 {
					if c.state != "" && row.State != c.state {
						t.Errorf("the hostile node's row: %+v", row)
					}
					continue
				}
				last = max(last, time.Duration(row.Seconds*float64(time.Second)))
				if row.State != "committed" {
					t.Errorf("row %+v\n%s", row, res.output)
				}
			}
			r.same(sent, "file", r.nodes[0], r.nodes[2], r.nodes[3], r.nodes[4])
			if last > c.others+slack() || res.took > c.within+slack() {
				t.Errorf("others are done after %v, want %v; the push ends after %v, want %v", last, c.others, res.took, c.within)
			}
			bad := res.report.Nodes[1]
			t.Logf("%s: others done after %v, the push ends after %v; its row: %s %s", c.mode, last, res.took.Round(100*time.Millisecond), bad.State, bad.Reason)
		})
	}
}

// Two hostile neighbours that agreed on what they tell, so that each confirms the other, cost the innocent nodes a time that is bounded.
// No innocent node gets wrong bytes, and none is called at fault, but for one that is an end of a link with each of the two: it may be
// held to have changed bytes (ring/PROTOCOL.md, section 9).
func TestTwoHostileNodes(t *testing.T) {
	together(t)
	for mode, within := range map[string]time.Duration{
		"agreed, takes nothing": 30 * time.Second, // the first node waits for each of them in turn
		"agreed, sends nothing": 18 * time.Second,
		"changes bytes":         3 * time.Second,
	} {
		t.Run(mode, func(t *testing.T) {
			together(t)
			ctx := need(t, 4*time.Minute)
			r := newRig(t, ctx, netns.Config{Nodes: 6})
			liar := map[int]bool{1: true, 2: true}
			for i, n := range r.nodes {
				if liar[i] {
					n.hostile(mode)
				} else {
					n.start()
				}
			}
			sent := makeFile(t, filepath.Join(r.dir, "sent"), 24<<20)
			res := r.push("raw", "--input", sent, "--output", r.data+"/file", "--json")
			if res.report == nil {
				t.Fatalf("no report\n%s", res.output)
			}
			last, blamed := time.Duration(0), 0
			for i, row := range res.report.Nodes {
				if liar[i] {
					continue
				}
				last = max(last, time.Duration(row.Seconds*float64(time.Second)))
				switch {
				case row.State == "committed":
					r.same(sent, "file", r.nodes[i])
				case row.Code == "changed-twice" && blamed == 0:
					blamed++
					r.nodes[i].empty()
				default:
					t.Errorf("row %+v\n%s", row, res.output)
				}
				if row.Link != "" && !strings.Contains(row.Link, r.nodes[1].name()) && !strings.Contains(row.Link, r.nodes[2].name()) {
					t.Errorf("row %+v names a link of innocent nodes", row)
				}
			}
			if last > within+2*slack() { // other tests run beside it
				t.Errorf("the others are done after %v, want %v", last, within)
			}
			t.Logf("%s: others done after %v, %d of them blamed", mode, last, blamed)
		})
	}
}
