package e2e

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/test/netns"
)

var matrixTable = flag.String("matrix", "", "write the table of the fault matrix, as Markdown, to `FILE`")

// fault is a row of the matrix: what is done to a ring of eight nodes in the middle of a
// transfer, and what has to come of it.
type fault struct {
	name  string
	where string
	// do is done when the transfer is under way; n are the victims.
	do func(ctx context.Context, r *rig, n []*node) error
	at []int // the victims, counted from 0

	states map[int]string // of nodes that are not committed
	reason string         // part of the row of each victim, "" for none
	link   string         // the link the victims' rows name, as A>B of node numbers, S the server
	exit   int
	within time.Duration // that it may take longer than without the fault
	data   string        // "": tls
	flags  []string
}

const (
	matrixNodes = 8
	matrixRate  = 20e6 // bytes per second
	matrixSize  = 100e6
)

func each(do func(ctx context.Context, n *node) error) func(context.Context, *rig, []*node) error {
	return func(ctx context.Context, _ *rig, victims []*node) error {
		for _, n := range victims {
			if err := do(ctx, n); err != nil {
				return err
			}
		}
		return nil
	}
}

var (
	killed  = each(func(_ context.Context, n *node) error { n.kill(); return nil })
	stopped = each(func(_ context.Context, n *node) error { n.daemon.Signal(syscall.SIGSTOP); return nil })
	cut     = each(func(ctx context.Context, n *node) error { return n.Unplug(ctx) })
)

func failed(at ...int) map[int]string {
	m := map[int]string{}
	for _, i := range at {
		m[i] = "failed"
	}
	return m
}

var matrix = []fault{
	{name: "kill", where: "first", do: killed, at: []int{0}, states: failed(0), reason: "lost during the transfer", exit: 3, within: 2 * time.Second},
	{name: "kill", where: "middle", do: killed, at: []int{3}, states: failed(3), reason: "lost during the transfer", exit: 3, within: 2 * time.Second},
	{name: "kill", where: "last", do: killed, at: []int{7}, states: failed(7), reason: "lost during the transfer", exit: 3, within: 2 * time.Second},
	{name: "kill", where: "three adjacent", do: killed, at: []int{2, 3, 4}, states: failed(2, 3, 4), reason: "lost during the transfer", exit: 3, within: 2 * time.Second},
	{name: "kill", where: "half", do: killed, at: []int{0, 2, 4, 6}, states: failed(0, 2, 4, 6), reason: "lost during the transfer", exit: 3, within: 3 * time.Second},
	{name: "stop", where: "first", do: stopped, at: []int{0}, states: failed(0), reason: "silent", exit: 3, within: 7 * time.Second},
	{name: "stop", where: "middle", do: stopped, at: []int{3}, states: failed(3), reason: "silent", exit: 3, within: 7 * time.Second},
	{name: "stop", where: "last", do: stopped, at: []int{7}, states: failed(7), reason: "silent", exit: 3, within: 7 * time.Second},
	{name: "stop", where: "three adjacent", do: stopped, at: []int{2, 3, 4}, states: failed(2, 3, 4), reason: "silent", exit: 3, within: 7 * time.Second},
	{name: "cut", where: "middle", do: cut, at: []int{3}, states: failed(3), reason: "silent", exit: 3, within: 7 * time.Second},
	{name: "cut", where: "half", do: cut, at: []int{1, 3, 5, 7}, states: failed(1, 3, 5, 7), reason: "silent", exit: 3, within: 8 * time.Second},
	{name: "kill and start again", where: "middle", at: []int{3}, reason: "came back", within: 8 * time.Second,
		do: each(func(_ context.Context, n *node) error { n.kill(); n.start(); return nil })},
	{name: "link cut", where: "middle", at: []int{3}, link: "2>3", reason: "link", within: 8 * time.Second,
		do: func(ctx context.Context, r *rig, n []*node) error {
			if err := n[0].Block(ctx, r.nodes[2].Host); err != nil {
				return err
			}
			return r.nodes[2].Block(ctx, n[0].Host)
		}},
	{name: "link cut one way", where: "middle", at: []int{3}, link: "2>3", reason: "link", within: 8 * time.Second,
		do: func(ctx context.Context, r *rig, n []*node) error { return n[0].Block(ctx, r.nodes[2].Host) }},
	{name: "slow link", where: "middle", at: []int{3}, reason: "slow", within: 80 * time.Second, flags: []string{"--rate", "40M"},
		do: each(func(ctx context.Context, n *node) error { return n.Shape(ctx, 10e6) })},
}

// Each row of the matrix: whoever can be served is, with right bytes, and the report
// tells the truth about the rest.
func TestFaultMatrix(t *testing.T) {
	var table strings.Builder
	fmt.Fprintln(&table, "| fault | where | seconds added | outcome |\n|---|---|---|---|")
	for _, f := range matrix {
		t.Run(f.name+" "+f.where, func(t *testing.T) {
			ctx := need(t, 3*time.Minute)
			r := newRig(t, ctx, netns.Config{Nodes: matrixNodes})
			r.start()
			sent := makeFile(t, filepath.Join(r.dir, "sent"), matrixSize)
			data := f.data
			if data == "" {
				data = "tls"
			}
			args := []string{"raw", "--input", sent, "--output", r.data + "/file", "--data", data, "--json"}
			if f.flags == nil {
				args = append(args, "--rate", fmt.Sprint(int(matrixRate)))
			}
			p := r.startPush(append(args, f.flags...)...)
			if _, err := p.process.Line(ctx, `"event":"progress"`); err != nil {
				t.Fatal(err)
			}
			var victims []*node
			for _, i := range f.at {
				victims = append(victims, r.nodes[i])
			}
			if err := f.do(ctx, r, victims); err != nil {
				t.Fatal(err)
			}
			res := p.wait()
			states := make([]string, matrixNodes)
			for i := range states {
				states[i] = orElse(f.states[i], "committed")
			}
			r.want(res, f.exit, states...)
			for i, n := range r.nodes {
				if states[i] == "committed" {
					r.same(sent, "file", n)
				}
			}
			if res.report != nil {
				f.checkRows(t, r, res)
			}
			extra := res.took - time.Duration(matrixSize/matrixRate*float64(time.Second))
			if extra > f.within {
				t.Errorf("took %v longer, allowed are %v\n%s", extra, f.within, res.output)
			}
			fmt.Fprintf(&table, "| %s | %s | %.1f | %s |\n", f.name, f.where, max(0, extra.Seconds()), f.outcome(res))
		})
	}
	if *matrixTable != "" {
		if err := os.WriteFile(*matrixTable, []byte(table.String()), 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

func (f *fault) checkRows(t *testing.T, r *rig, res *result) {
	t.Helper()
	for _, i := range f.at {
		row := res.report.Nodes[i]
		if !strings.Contains(row.Reason, f.reason) {
			t.Errorf("row %+v: the reason does not say %q", row, f.reason)
		}
		if from, to, ok := strings.Cut(f.link, ">"); ok {
			name := func(s string) string {
				if s == "S" {
					return "server"
				}
				var k int
				fmt.Sscan(s, &k)
				return r.nodes[k].Addr.String()
			}
			if want := name(from) + " -> " + name(to); row.Link != want {
				t.Errorf("row %+v: the link is not %s", row, want)
			}
		}
	}
}

// outcome is what the table says.
func (f *fault) outcome(res *result) string {
	if res.report == nil {
		return "no report"
	}
	count := map[string]int{}
	for _, row := range res.report.Nodes {
		count[row.State]++
	}
	s := fmt.Sprintf("%d committed", count["committed"])
	if n := count["failed"]; n > 0 {
		s += fmt.Sprintf(", %d failed", n)
	}
	if len(f.at) > 0 {
		s += ": “" + res.report.Nodes[f.at[0]].Reason + "”"
	}
	return s
}

func orElse(s, other string) string {
	if s != "" {
		return s
	}
	return other
}
