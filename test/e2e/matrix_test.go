package e2e

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dolly-img/dolly-img/test/netns"
)

var (
	matrixTable = flag.String("matrix", "", "add the tables of the fault matrix, all of its rows, as Markdown, to `FILE`")
	matrixAll   = flag.Bool("matrix.all", false, "play all rows of the fault matrix: without, one of those that differ only in which nodes something is done to")
)

// fault is a row of the matrix: what is done to a ring of eight nodes, and what has to
// come of it.
type fault struct {
	name  string
	where string

	elsewhere bool // another row has the same fault at other nodes: this one is played by hand

	prepare act   // before the daemons start
	early   act   // before the transfer starts
	do      act   // when the transfer is under way
	at      []int // the victims, counted from 0

	states map[int]string // of nodes that are not committed
	reason string         // part of the row of each victim, "" for an empty one
	link   string         // the link the victims' rows name, as A>B of node numbers, S the server; one for all, or for each
	beside map[int]string // the links that rows of others name by design: they are an end of it
	cause  string         // of a slow node: what its row and the progress name it for
	exit   int
	back   int64 // what the victims had received when they went away, and came back: they are served the rest
	late   bool  // the victims were not there before: they are served everything
	clean  bool  // the victims failed by their own disks, and leave nothing there

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
	matrixRate  = 5e6 // bytes are what a row costs, and its faults need time
	matrixSize  = 20e6
)

// atOnce is how many rows are played at the same time: most of each is waiting. A row in which only the slow node is
// still served makes way for the next. Who writes the table measures, and has less beside a row.
func atOnce() int {
	if measures() {
		return 2
	}
	return 5
}

// Each row of the matrix: whoever can be served is, with right bytes, and the report
// tells the truth about the rest.
func TestFaultMatrix(t *testing.T) {
	rows := matrix
	if !allRows() {
		rows = slices.DeleteFunc(slices.Clone(matrix), func(f *fault) bool { return f.elsewhere })
	}
	lines := make([]string, len(rows))
	places := make(chan struct{}, atOnce())
	t.Run("row", func(t *testing.T) {
		for i, f := range rows {
			t.Run(f.name+" "+f.where, func(t *testing.T) {
				t.Parallel()
				places <- struct{}{}
				done := sync.OnceFunc(func() { <-places })
				defer done()
				lines[i] = f.play(t, done)
			})
		}
	})
	addToTable(t, "| fault | where | seconds added | outcome |\n|---|---|---|---|\n", lines)
}

// addToTable adds lines with a head of their own to the file of -matrix, if there is one.
func addToTable(t *testing.T, head string, lines []string) {
	t.Helper()
	if !measures() {
		return
	}
	f, err := os.OpenFile(*matrixTable, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o666)
	if err == nil {
		_, err = f.WriteString(head + strings.Join(lines, "") + "\n")
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// play plays a row and returns its line of the table. It calls served when the ring has no more to do than to serve
// victims behind the others.
func (f *fault) play(t *testing.T, served func()) string {
	ctx := need(t, 2*time.Minute, "strace", "ss")
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
	if f.behind && s.othersCommitted(ctx) {
		served()
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
	t.Logf("%.1f s longer: %s", extra.Seconds(), outcome(res, f.at[0], s.nodes, s.data))
	return fmt.Sprintf("| %s | %s | %.1f | %s |\n", f.name, f.where, max(0, extra.Seconds()), outcome(res, f.at[0], s.nodes, s.data))
}

// othersCommitted waits until all that nothing is done to have committed. It is false when the push ends before that.
func (s *scene) othersCommitted(ctx context.Context) bool {
	for _, n := range s.nodes {
		if slices.Contains(s.victims, n) {
			continue
		}
		if _, err := s.push.process.Line(ctx, fmt.Sprintf(`"node":%q,"state":"committed"`, n.name())); err != nil {
			return false
		}
	}
	return true
}

// allRows says whether rows are played, too, that differ from others only in which nodes something is done to.
func allRows() bool { return *matrixAll || measures() }

// measures says whether the times are wanted and not only held below limits: then the table is written.
func measures() bool { return *matrixTable != "" }

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
	f.checkOthers(t, s, res)
	f.checkBytes(t, s, res)
	if f.clean {
		for _, n := range s.victims {
			eventually(t, 5*time.Second, n.Name+" leaves nothing", n.nothingLeft)
		}
	}
	for k, i := range f.at {
		row := res.report.Nodes[i]
		reason, link := f.reason, f.link
		if f.cause != "" {
			reason = "slow: " + f.cause
		}
		if all := strings.Fields(f.link); len(all) > 1 {
			link = all[k]
		}
		want := s.link(link)
		good := strings.Contains(row.Reason, reason) && (reason != "" || row.Reason == "") && row.Link == want
		if !good && !s.starved(t, row, events(t, res.output), reason, want) {
			t.Errorf("row %+v of a victim: want reason %q, link %q\n%s", row, reason, want, res.output)
		}
		if f.cause == "" {
			continue
		}
		limit := row.Node + ": " + f.cause
		if f.cause == "link" {
			limit = "link " + want
		}
		named := false
		for _, e := range events(t, res.output) {
			b, _ := e["bottleneck"].(string)
			named = named || strings.HasPrefix(b, limit)
		}
		if !named {
			t.Errorf("no progress names %q as the bottleneck\n%s", limit, res.output)
		}
	}
}

// checkOthers demands that nothing is said of nodes that nothing was done to, but of the
// feeder at the other end of a link that changed bytes: nobody can tell which end did.
func (f *fault) checkOthers(t *testing.T, s *scene, res *result) {
	t.Helper()
	for i, row := range res.report.Nodes {
		if slices.Contains(f.at, i) {
			continue
		}
		reason := ""
		link := s.link(f.beside[i])
		if link != "" {
			reason = "bytes were changed on link " + link
		}
		if (row.Reason != reason || row.Link != link) && !busy(t, row, events(t, res.output)) {
			t.Errorf("row %+v of a healthy node: want reason %q, link %q\n%s", row, reason, link, res.output)
		}
	}
}

// checkBytes demands that who came back got the rest and not everything. Its row counts what
// it received before and after, and nothing as skipped: it had all that from this push
// (ring/report.go; a part of an earlier push is skipped, see TestResume). Who went away has
// lost what it had not yet stored. Its network card counts, too, and not what we think.
func (f *fault) checkBytes(t *testing.T, s *scene, res *result) {
	t.Helper()
	if f.back == 0 && !f.late {
		return
	}
	size, most := int64(f.size), int64(f.size)
	if f.back > 0 {
		most += returnCosts
	}
	if most >= size+f.back && !f.late {
		t.Fatalf("%d bytes at most, and all again are %d: this shows nothing", most, size+f.back)
	}
	for _, i := range f.at {
		row := res.report.Nodes[i]
		if row.Bytes > most || row.Skipped != 0 || f.late && row.Bytes != size {
			t.Errorf("row %+v: %d bytes at most, %d when new, none skipped\n%s", row, most, size, res.output)
		}
		traffic, err := s.nodes[i].Traffic(s.ctx)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: row %d, card %d of %d", row.Node, row.Bytes, traffic.Received, size)
		if traffic.Received > most+size/50 || traffic.Received < size {
			t.Errorf("%s: the card received %d bytes, %d at most of %d\n%s", row.Node, traffic.Received, most+size/50, size, res.output)
		}
	}
}

// nothingLeft says whether a node's output directory, as the daemon sees it, holds
// nothing but the file of filled.
func (n *node) nothingLeft() (bool, string) {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/root%s", n.daemon.Pid(), n.rig.data))
	entries = slices.DeleteFunc(entries, func(e os.DirEntry) bool { return e.Name() == "other" })
	return err == nil && len(entries) == 0, fmt.Sprint(entries, err)
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

// outcome is what the table says of a push: how each ended, and why a victim did, with the names of the nodes for their addresses.
func outcome(res *result, victim int, nodes []*node, data string) string {
	count := map[string]int{}
	for _, row := range res.report.Nodes {
		count[row.State]++
	}
	var all []string
	for _, state := range []string{"committed", "held", "failed", "refused"} {
		if n := count[state]; n > 0 {
			all = append(all, fmt.Sprintf("%d %s", n, state))
		}
	}
	text := strings.Join(all, ", ")
	if reason := res.report.Nodes[victim].Reason; reason != "" {
		var words []string
		if data != "" {
			words = append(words, data, "/data")
		}
		for _, n := range nodes {
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
