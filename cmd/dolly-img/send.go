package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/push"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/web"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/printable"
)

// job is a push that the command line makes and shows. When it is made, the command line has been checked
// and nothing has been opened.
type job struct {
	*push.Push
	cmd *cobra.Command
	// screen is standard error.
	screen *screen
	flags  *sendFlags
	// watch is called with every event. It may be nil.
	watch func(ring.Event)
	// alive is called while something moves that is no event. It may be nil.
	alive func()
	// ended is called with the report, before anything about it is printed. It may be nil.
	ended func(rep *ring.Report)
	// again returns the command that serves these nodes once more. It may be nil.
	again func(nodes []string) string
	// news is what is printed while it runs.
	news *progress
	// chain is what the page of --web shows of it. It may be nil.
	chain *web.Chain
	// agreed says that somebody agreed to the plan of a transfer to devices. Nothing is overwritten before.
	agreed atomic.Bool
	// ownSaid says that it was printed that this machine is in its own list of nodes.
	ownSaid bool
}

// run sends, and tells what became of it: on the page of --web, in the file of --report, as events, and in the table.
func (j *job) run(ctx context.Context) error {
	outliveReaders()
	page, err := j.flags.web.open(j.screen)
	if err != nil {
		return err
	}
	defer page.close()
	if page != nil {
		j.chain = page.server.Chain(shortName(j.Name))
		j.OnNodes = j.chain.Snapshot
	}
	return page.stay(ctx, j.send(ctx))
}

func (j *job) send(ctx context.Context) error {
	report, err := openReport(j.flags.report)
	if err != nil {
		return err
	}
	stderr := j.screen
	j.news = &progress{
		screen: stderr, image: shortName(j.Name), nodes: len(j.Nodes),
		quiet: j.flags.quiet || j.flags.json, detail: j.flags.verbose,
	}
	events := newEventWriter(io.Discard)
	if j.flags.json {
		events = newEventWriter(j.cmd.OutOrStdout())
	}
	queue := newEventQueue(func(e ring.Event) {
		events.write(e)
		// After ^C all nodes fail, which nobody needs to read.
		if ctx.Err() == nil {
			j.news.event(e)
		}
		if j.watch != nil {
			j.watch(e)
		}
	})
	j.OnEvent = queue.put
	rep, err := j.Run(ctx)
	if j.Check && rep.Transfer != "" && rep.Exit != ring.ExitInterrupted {
		rep.Plan = j.figures(rep)
	}
	// The report is written first, because all that is printed may wait for a reader.
	werr := report.write(rep)
	queue.close()
	j.news.end()
	events.write(rep)
	if j.chain != nil {
		j.chain.Report(rep, err)
	}
	if j.ended != nil {
		j.ended(rep)
	}
	if errors.Is(err, push.ErrUnconfirmed) {
		return &statusError{rep.Exit, j.confirmWith(err)}
	}
	for _, end := range j.Ending(time.Now()) {
		stderr.printf("warning: %s; %s", end.String(time.Now()), hints["certificate-ends"])
	}
	j.show(stderr, rep, j.flags.json && events.err == nil)
	j.printHalf(stderr, rep, err)
	// The transfer is over, and an error of writing the report does not change its status. It is only printed.
	if werr != nil {
		printError(stderr, hintf("the transfer itself ended as shown", "report: %w", werr))
	}
	if events.err != nil {
		printError(stderr, hintf("the transfer itself ended as shown", "events: %w", events.err))
	}
	if rep.Exit == ring.ExitAll && err == nil {
		return nil
	}
	source := new(ring.SourceError)
	cutOff := rep.Exit == ring.ExitInterrupted || errors.As(err, &source) && source.Kept && hintOf(err) == ""
	if rep.Exit == ring.ExitInterrupted && err != nil && j.Meta.Device != nil && !j.Check && !j.agreed.Load() {
		return &statusError{rep.Exit, fmt.Errorf("nothing was overwritten: %w", err)}
	}
	if hint := j.sameAgain(); cutOff && rep.Transfer != "" && !j.Check && hint != "" && err != nil {
		err = hintf(hint, "%w", err)
	}
	return &statusError{rep.Exit, err}
}

// sameAgain says what the same command does after this transfer was cut off, or nothing where it left nothing on the nodes.
func (j *job) sameAgain() string {
	switch {
	case j.Meta.Discard || j.Meta.Output == "-":
		return ""
	case j.Meta.Tree != nil:
		return "the same command begins anew: nodes keep nothing of a directory that did not come whole"
	}
	return "the same command goes on from what the nodes have kept"
}

// show prints what became of the nodes, unless told says that the report was printed as JSON.
func (j *job) show(stderr *screen, rep *ring.Report, told bool) {
	switch {
	case told || rep.Transfer == "" || rep.Exit == ring.ExitInterrupted:
	case j.Check: // the command was asked for the plan, so it goes to standard output
		var plan *push.Plan
		if j.Meta.Device != nil {
			p := j.Plan(rep.Nodes, rep.Bytes)
			plan = &p
		}
		printCheck(j.cmd.OutOrStdout(), rep, j.flags.quiet, push.Updates(j.Update, rep.Bytes), plan)
		j.printOwn(j.cmd.OutOrStdout(), rep.Nodes)
		printUnreached(j.cmd.OutOrStdout(), rep, j.flags.quiet)
		j.printUnread(j.cmd.OutOrStdout(), rep, len(rowsIn(rep, func(row ring.Row) bool { return row.State == ring.Held })))
		j.printCompared(j.cmd.OutOrStdout(), rep)
	default:
		have, what, switched := "have it", "manifest", "switched to it"
		if j.Meta.Kind == meta.KindRaw {
			what = "file"
		}
		if _, ok := j.What.(push.Tree); ok {
			what = "directory"
		}
		if j.Update && j.Meta.Device == nil { // also where the file became shorter or was replaced
			switched = "got the mode and the time"
		}
		if j.Meta.Discard {
			have = "have verified it and thrown it away"
		}
		printTable(stderr, rep, what, have, j.flags.quiet, j.news, switched)
		j.printOwn(stderr, rep.Nodes)
		printStandIn(stderr, rep)
		j.printNotReadBack(stderr, rep)
		j.printUnread(stderr, rep, rep.Count())
		if rep.Unsynced && rep.Count() > 0 {
			stderr.printf("nothing was made durable: a node that loses power now may lose it")
		}
	}
	if j.again != nil && !told && !j.Check && rep.Exit != ring.ExitInterrupted { // of which no row is shown
		j.printAgain(stderr, rep)
	}
}

// printCompared says of a plan to send a file what becomes of files that are there: that they are as long was seen, and
// not yet whether they have the same bytes.
func (j *job) printCompared(w io.Writer, rep *ring.Report) {
	if j.Meta.Kind != meta.KindRaw || j.Meta.Device != nil || j.Meta.Discard || j.flags.quiet {
		return
	}
	there := func(row ring.Row) bool { return row.State == ring.Pending && row.Skipped > 0 }
	if slices.ContainsFunc(rep.Nodes, there) {
		fmt.Fprintln(w, "what is held was not compared yet: a node whose own file is as long and has other bytes will fail (exit 3, or 4 if no node commits)")
	}
	switch {
	case rep.Plan.Serve == 0 || j.Meta.Output == "-":
	case j.Meta.Tree != nil && j.Meta.Tree.InPlace:
		fmt.Fprintln(w, "where a policy has overwrite = true, files of a directory that is there are replaced one by one, and none is removed")
	case j.Meta.Tree != nil:
		fmt.Fprintln(w, "where a policy has overwrite = true, a directory that is there is replaced as a whole")
	case push.Updates(j.Update, rep.Bytes):
		fmt.Fprintln(w, "where a policy has overwrite = true, a file that is there is compared first, and only what differs is sent")
	default:
		hint := ""
		if !j.Update && push.Updates(true, rep.Bytes) {
			hint = "; --update compares"
		}
		fmt.Fprintln(w, "where a policy has overwrite = true, a file that is there is replaced without being compared, by a transfer and so by this plan, too"+hint)
	}
}

// printUnread warns when no layer of an archive or layout was read, because the nodes that would be served have
// all of them: damage in it would not have been noticed. Have is the number of nodes that have the image.
func (j *job) printUnread(w io.Writer, rep *ring.Report, have int) {
	moved := slices.ContainsFunc(rep.Nodes, func(row ring.Row) bool { return row.Bytes > 0 || row.State == ring.Pending })
	if j.Unread() && have > 0 && !moved && rep.Sent == 0 && !j.flags.quiet {
		fmt.Fprintf(w, "no layer of %s was read, as the nodes have all of them: damage in it would not have shown\n", printable.Line(j.Name))
	}
}

// printAgain prints the command that serves the nodes which were not served, if some were. It leaves out nodes
// that refused and would refuse again.
func (j *job) printAgain(stderr *screen, rep *ring.Report) {
	bad := rowsIn(rep, func(row ring.Row) bool { return !row.State.Good() })
	if len(bad) == 0 || len(bad) == len(rep.Nodes) {
		return
	}
	var denied, rest []string
	for _, row := range bad {
		if row.Cause.Fault == ring.FaultDenied {
			denied = append(denied, row.Node)
		} else {
			rest = append(rest, row.Node)
		}
	}
	stderr.printf("not served: %s", fold(namesOf(bad)))
	if len(rest) > 0 {
		how := "serve them with"
		if j.Name == "-" {
			how = "serve them by feeding the same stream to"
		}
		stderr.printf("%s: %s", how, j.again(rest))
	}
	if len(denied) > 0 {
		stderr.printf("%s would refuse again: first change what its row says", fold(denied))
	}
}

// note prints, above the progress, what the user should know though it is no error.
func (j *job) note(note error) { j.remark("note", note) }

// warn prints a warning above the progress.
func (j *job) warn(warning error) { j.remark("warning", warning) }

// remark prints a note or a warning in one line, with the hint for its kind.
func (j *job) remark(what string, about error) {
	if j.flags.quiet {
		return
	}
	text := about.Error()
	if hint := hintOf(about); hint != "" {
		text += "; " + hint
	}
	j.screen.printf("%s: %s", what, text)
}

// shortName is the name of the image in the line of progress.
func shortName(image string) string {
	if image == "-" {
		return "standard input"
	}
	return filepath.Base(image)
}

func (f *sendFlags) log(w io.Writer) *slog.Logger {
	if !f.verbose {
		return nil
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}
