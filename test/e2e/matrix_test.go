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

var matrixTable = flag.String("matrix", "", "write the table of the fault matrix, as Markdown, to `FILE`")

// fault is a row of the matrix: what is done to a ring of eight nodes, and what has to
// come of it.
type fault struct {
	name  string
	where string

	prepare act   // before the daemons start
	early   act   // before the transfer starts
	do      act   // when the transfer is under way
	at      []int // the victims, counted from 0

	states map[int]string // of nodes that are not committed
	reason string         // part of the row of each victim, "" for none
	link   string         // the link the victims' rows name, as A>B of node numbers, S the server
	cause  string         // of a slow node: what its row and the progress name it for
	exit   int

	// within is how much longer than without the fault it may take; of a victim that is
	// served behind the others, these.
	within time.Duration
	behind bool

	size, rate float64 // bytes, and bytes per second; 0: those below
	data       string  // "": tls
	flags      []string
}

const (
	matrixNodes = 8
	matrixRate  = 20e6
	matrixSize  = 100e6
)

// atOnce is how many rows are played at the same time: most of each is waiting.
var atOnce = make(chan struct{}, 2)

// Each row of the matrix: whoever can be served is, with right bytes, and the report
// tells the truth about the rest.
func TestFaultMatrix(t *testing.T) {
	lines := make([]string, len(matrix))
	t.Run("row", func(t *testing.T) {
		for i, f := range matrix {
			t.Run(f.name+" "+f.where, func(t *testing.T) {
				t.Parallel()
				atOnce <- struct{}{}
				defer func() { <-atOnce }()
				lines[i] = f.play(t)
			})
		}
	})
	if *matrixTable != "" {
		table := "| fault | where | seconds added | outcome |\n|---|---|---|---|\n" + strings.Join(lines, "")
		if err := os.WriteFile(*matrixTable, []byte(table), 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

// play plays a row and returns its line of the table.
func (f *fault) play(t *testing.T) string {
	ctx := need(t, 2*time.Minute, "strace")
	if f.size == 0 {
		f.size = matrixSize
	}
	if f.rate == 0 {
		f.rate = matrixRate
	}
	s := &scene{rig: newRig(t, ctx, netns.Config{Nodes: matrixNodes})}
	for _, i := range f.at {
		s.victims = append(s.victims, s.nodes[i])
	}
	run := func(a act) {
		t.Helper()
		if a == nil {
			return
		}
		if err := a(ctx, s); err != nil {
			t.Fatal(err)
		}
	}
	run(f.prepare)
	s.start()
	run(f.early)
	sent := makeFile(t, filepath.Join(s.dir, "sent"), int64(f.size))
	s.push = s.startPush(append([]string{"raw", "--input", sent, "--output", s.data + "/file", "--json",
		"--data", orElse(f.data, "tls"), "--rate", fmt.Sprint(int(f.rate))}, f.flags...)...)
	if f.do != nil {
		if _, err := s.push.process.Line(ctx, `"event":"progress"`); err != nil {
			t.Fatal(err)
		}
		run(f.do)
	}
	res := s.push.wait()
	states := make([]string, matrixNodes)
	for i := range states {
		states[i] = orElse(f.states[i], "committed")
	}
	s.want(res, f.exit, states...)
	for i, n := range s.nodes {
		if states[i] == "committed" {
			s.same(sent, "file", n)
		}
	}
	if res.report == nil {
		return ""
	}
	f.checkRows(t, s, res)
	took := res.took
	if f.behind {
		took = f.others(res)
	}
	extra := took - time.Duration(f.size/f.rate*float64(time.Second))
	if limit := f.within + slack(); extra > limit {
		t.Errorf("took %v longer, allowed are %v\n%s", extra, limit, res.output)
	}
	t.Logf("%.1f s longer: %s", extra.Seconds(), f.outcome(s, res))
	return fmt.Sprintf("| %s | %s | %.1f | %s |\n", f.name, f.where, max(0, extra.Seconds()), f.outcome(s, res))
}

// slack is what a busy machine may add to a time that is demanded. Who writes the table
// measures, and has none.
func slack() time.Duration {
	if *matrixTable != "" {
		return 0
	}
	return 12 * time.Second
}

// others is when the last of those ended that nothing was done to.
func (f *fault) others(res *result) time.Duration {
	victim := map[int]bool{}
	for _, i := range f.at {
		victim[i] = true
	}
	var last float64
	for i, row := range res.report.Nodes {
		if !victim[i] {
			last = max(last, row.Seconds)
		}
	}
	return time.Duration(last * float64(time.Second))
}

func (f *fault) checkRows(t *testing.T, s *scene, res *result) {
	t.Helper()
	for _, i := range f.at {
		row := res.report.Nodes[i]
		reason := f.reason
		if f.cause != "" {
			reason = "slow: " + f.cause
		}
		if !strings.Contains(row.Reason, reason) {
			t.Errorf("row %+v: the reason does not say %q\n%s", row, reason, res.output)
		}
		if want := s.link(f.link); row.Link != want {
			t.Errorf("row %+v: the link is not %q\n%s", row, want, res.output)
		}
		if f.cause == "" {
			continue
		}
		want := row.Node + ": " + f.cause
		if f.cause == "link" {
			want = "link " + s.link(f.link)
		}
		named := false
		for _, e := range events(t, res.output) {
			b, _ := e["bottleneck"].(string)
			named = named || strings.HasPrefix(b, want)
		}
		if !named {
			t.Errorf("no progress names %q as the bottleneck\n%s", want, res.output)
		}
	}
}

// link is the name of a link A>B in reports.
func (s *scene) link(ends string) string {
	from, to, ok := strings.Cut(ends, ">")
	if !ok {
		return ""
	}
	name := func(end string) string {
		if end == "S" {
			return "server"
		}
		var k int
		fmt.Sscan(end, &k)
		return s.nodes[k].name()
	}
	return name(from) + " -> " + name(to)
}

// outcome is what the table says, with the names of the nodes for their addresses.
func (f *fault) outcome(s *scene, res *result) string {
	count := map[string]int{}
	for _, row := range res.report.Nodes {
		count[row.State]++
	}
	text := fmt.Sprintf("%d committed", count["committed"])
	if n := count["failed"]; n > 0 {
		text += fmt.Sprintf(", %d failed", n)
	}
	if reason := res.report.Nodes[f.at[0]].Reason; reason != "" {
		words := []string{s.data, "/data"}
		for _, n := range s.nodes {
			words = append(words, n.name(), n.Name)
		}
		text += ": “" + strings.NewReplacer(words...).Replace(reason) + "”"
	}
	return text
}

func orElse(s, other string) string {
	if s != "" {
		return s
	}
	return other
}
