package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/hinted"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/image"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
	"github.com/dolly-img/dolly-img/oci"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/identity"
	"github.com/dolly-img/dolly-img/ring/printable"
	"github.com/dolly-img/dolly-img/sif"
)

// job is one push or raw, read from its flags: everything the command line can be
// wrong about was checked, nothing was opened.
type job struct {
	cmd    *cobra.Command
	screen *screen        // of standard error; nil: made when it runs
	image  string         // as named by the user
	what   string         // of which the digest in the report is: "manifest", "file"
	meta   *meta.Transfer // once the source is open
	kept   string         // name in the nodes' caches, once the source is open; "": not kept there
	thrown bool           // away, by all nodes, once it was verified
	packed bool           // an archive or layout on this machine, whose layers are read only where a node lacks them
	nodes  []string
	peers  []ring.Peer // nodes, once they are resolved

	plain  bool
	rate   int64
	flags  *sendFlags
	enough int // good nodes for success; 0: all

	// resolve finds the addresses of nodes.
	resolve func(ctx context.Context) ([]ring.Peer, error)
	// open makes the source and the description that goes with it.
	open func(ctx context.Context) (ring.Source, *meta.Transfer, error)
	// watch sees every event, and prints on the screen. again is the command that
	// serves these nodes, once more. Both may be nil.
	watch func(ring.Event, *screen)
	again func(nodes []string) string
	ends  certificateEnds
}

// run sends, and reports whatever became of it: the file, the events, the table.
func (j *job) run(ctx context.Context) error {
	begun := time.Now()
	outliveReaders()
	report, err := openReport(j.flags.report)
	if err != nil {
		return err
	}
	stderr := j.screen
	if stderr == nil {
		stderr = newScreen(j.cmd.ErrOrStderr())
	}
	show := &progress{
		screen: stderr, image: shortName(j.image), nodes: len(j.nodes),
		quiet: j.flags.quiet || j.flags.json, detail: j.flags.verbose,
	}
	events := newEventWriter(io.Discard)
	if j.flags.json {
		events = newEventWriter(j.cmd.OutOrStdout())
	}
	queue := newEventQueue(func(e ring.Event) {
		events.write(e)
		if ctx.Err() == nil { // that all nodes fail after ^C is no news
			show.event(e)
		}
		if j.watch != nil {
			j.watch(e, stderr)
		}
	})
	rep, err := j.send(ctx, j.log(stderr), queue.put)
	rep.Image, rep.Kept = j.image, j.kept
	rep.Version, rep.Host, rep.Started = software(), hostName(), begun.Format(time.RFC3339)
	rep.Exit = rep.Status(err, j.enough)
	if j.flags.check {
		rep.Exit = checkStatus(rep, err, j.enough)
	}
	if rep.Exit == ring.ExitSource && ctx.Err() != nil {
		rep.Exit = ring.ExitInterrupted // while the source was opened
	}
	// Before anything that waits for whoever reads what is printed.
	werr := report.write(rep)
	queue.close()
	show.end()
	events.write(rep)
	for _, warning := range j.ends.warnings(time.Now()) {
		stderr.printf("warning: %s", warning)
	}
	j.show(stderr, rep, j.flags.json && events.err == nil)
	// The transfer is over and its status stands: that it could not be written down
	// is said beside it.
	if werr != nil {
		printError(stderr, hinted.Errorf("the transfer itself ended as shown", "report: %w", werr))
	}
	if events.err != nil {
		printError(stderr, hinted.Errorf("the transfer itself ended as shown", "events: %w", events.err))
	}
	if rep.Exit == ring.ExitAll && err == nil {
		return nil
	}
	source := new(ring.SourceError)
	cutOff := rep.Exit == ring.ExitInterrupted || errors.As(err, &source) && source.Kept && hinted.Of(err) == ""
	if cutOff && rep.Transfer != "" && !j.flags.check && !j.thrown && err != nil {
		err = hinted.Errorf("the same command goes on from what the nodes have kept", "%w", err)
	}
	return &statusError{rep.Exit, err}
}

// show prints what became of the nodes, unless the report was told as JSON.
func (j *job) show(stderr *screen, rep *ring.Report, told bool) {
	switch {
	case told || rep.Transfer == "" || rep.Exit == ring.ExitInterrupted:
	case j.flags.check: // what was asked for, not a message beside it
		printCheck(j.cmd.OutOrStdout(), rep, j.flags.quiet, func(r *ring.Report) speed { return j.speed(r).shared(r, j.flags.maxDirect) })
		printUnreached(j.cmd.OutOrStdout(), rep, j.flags.quiet)
		j.printUnread(j.cmd.OutOrStdout(), rep, len(rowsIn(rep, func(row ring.Row) bool { return row.State == ring.Held })))
	default:
		have := "have it"
		if j.thrown {
			have = "have verified it and thrown it away"
		}
		printTable(stderr, rep, j.what, have, j.flags.quiet)
		printStandIn(stderr, rep)
		j.printUnread(stderr, rep, rep.Count())
	}
	if j.again != nil && !told && !j.flags.check {
		j.printAgain(stderr, rep)
	}
}

// printUnread says of a file or directory that so many nodes have everything of it, and so nothing but its manifest
// was read: that it is damaged would not show.
func (j *job) printUnread(w io.Writer, rep *ring.Report, have int) {
	moved := slices.ContainsFunc(rep.Nodes, func(row ring.Row) bool { return row.Bytes > 0 || row.State == ring.Pending })
	if j.packed && have > 0 && !moved && rep.Sent == 0 && !j.flags.quiet {
		fmt.Fprintf(w, "no layer of %s was read, as the nodes have all of them: damage in it would not have shown\n", printable.Line(j.image))
	}
}

// printAgain says, where some nodes were served, how the others are. Those that said no, and would
// again, are left out.
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
		if j.image == "-" {
			how = "serve them by feeding the same stream to"
		}
		stderr.printf("%s: %s", how, j.again(rest))
	}
	if len(denied) > 0 {
		stderr.printf("that does not help %s: the policy there, or a file that is there, has to be changed first, as the row says", fold(denied))
	}
}

// note says beside the progress what is no error and should be known.
func (j *job) note(format string, args ...any) {
	if !j.flags.quiet {
		j.screen.printf("note: "+format, args...)
	}
}

// maxDirect is --max-direct as the ring has it, where 0 is no limit.
func (j *job) maxDirect() int {
	if j.flags.maxDirect == 0 {
		return -1
	}
	return j.flags.maxDirect
}

// shortName is how the line of progress names the image.
func shortName(image string) string {
	if image == "-" {
		return "standard input"
	}
	return filepath.Base(image)
}

func (j *job) log(w io.Writer) *slog.Logger {
	if !j.flags.verbose {
		return nil
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// send never returns a nil report.
func (j *job) send(ctx context.Context, log *slog.Logger, onEvent func(ring.Event)) (*ring.Report, error) {
	cfg, err := j.config(ctx)
	if err != nil {
		return notStarted(j.nodes, err), err
	}
	if c, ok := cfg.Source.(io.Closer); ok {
		defer func() {
			if err := c.Close(); err != nil && log != nil { // the nodes have what they have
				log.Warn("source", "error", err)
			}
		}()
	}
	cfg.Log, cfg.OnEvent = log, onEvent
	rep, err := ring.Send(ctx, *cfg)
	if rep == nil {
		rep = notStarted(j.nodes, err)
	}
	if j.meta != nil {
		j.meta.Outdated(rep)
	}
	if j.what == "manifest" && rep.Digest != "" {
		rep.SIF = image.SIFDigest(ctx, cfg.Source)
	}
	return rep, err
}

// hostName is the name of this machine, "" where it has none.
func hostName() string {
	name, _ := os.Hostname()
	return name
}

// identity loads the keys of this server.
func (j *job) identity() (*identity.Identity, error) {
	dir, err := identity.Find(j.flags.keys)
	if err != nil {
		return nil, err
	}
	id, err := identity.Load(dir, identity.Sender)
	if err == nil {
		j.ends.own(id, time.Now())
	}
	return id, err
}

// platforms asks the nodes what they are: "" of one that does not answer, or say it.
func (j *job) platforms(ctx context.Context) []string {
	list := make([]string, len(j.nodes))
	id, err := j.identity()
	if err != nil {
		return list // the transfer will say why
	}
	peers, err := j.resolve(ctx)
	if err != nil {
		return list
	}
	greetings, err := ring.Greet(ctx, ring.Config{Nodes: peers, TLS: clientTLS(id, ring.ALPNControl), Software: software()})
	if err != nil {
		return list
	}
	list = list[:0]
	for _, g := range greetings {
		list = append(list, g.Platform)
	}
	return list
}

func (j *job) config(ctx context.Context) (_ *ring.Config, err error) {
	id, err := j.identity()
	if err != nil {
		return nil, err
	}
	source, m, err := j.open(ctx)
	if err != nil {
		return nil, err
	}
	j.meta, j.kept, j.thrown = m, m.Ref, m.Discard
	_, asItIs := source.(*oci.Image) // else its layers are checked, whether or not nodes lack them
	_, isSIF := source.(*sif.File)
	j.packed = m.Kind == meta.KindImage && !image.OfRegistry(j.image) && (asItIs || j.flags.check && !isSIF)
	defer func() {
		if c, ok := source.(io.Closer); ok && err != nil {
			c.Close()
		}
	}()
	cfg := &ring.Config{
		Source: source, Plain: j.plain, Rate: j.rate, Wait: j.flags.wait,
		Straggler: ring.Straggler(j.flags.straggler), Retries: j.flags.retries, Check: j.flags.check,
		MaxDirect: j.maxDirect(),
		TLS:       j.ends.watch(clientTLS(id, ring.ALPNControl)),
		DataTLS:   clientTLS(id, ring.ALPNData), Software: software(),
	}
	if cfg.Meta, err = m.Encode(); err != nil {
		return nil, err
	}
	cfg.Nodes, err = j.resolve(ctx)
	j.peers = cfg.Nodes
	return cfg, err
}
