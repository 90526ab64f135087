package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/fleet"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/bytesize"
	"github.com/dolly-img/dolly-img/ring/printable"
)

// Commands of cache for the caches of nodes.

// where holds the flags that say whose cache a command is about.
type where struct {
	dir   string
	fleet fleetFlags
}

func (f *where) add(cmd *cobra.Command) {
	addCacheFlag(cmd, &f.dir)
	f.fleet.add(cmd)
}

// onNodes reports whether the command is about the caches of nodes. The error says that it is about two things.
func (f *where) onNodes() (bool, error) {
	if len(f.fleet.nodes) > 0 && f.dir != "" {
		return true, usagef("--nodes: not with --cache, which is for a cache of this machine")
	}
	if len(f.fleet.nodes) == 0 && len(f.fleet.exclude) > 0 {
		return false, usagef("--exclude: only with --nodes, from which it leaves nodes out")
	}
	return len(f.fleet.nodes) > 0, nil
}

// tended is what became of work on the caches of nodes.
type tended struct {
	work    ring.Work
	replies []ring.TendReply
	rows    []ring.Row
	keys    string // the directory of the keys, "" for the usual one
	warmer  string // whose wishes are let go, or ""
}

// tendNodes has the caches of the nodes tended, and verifyNodes has them read.
func (f *where) tendNodes(cmd *cobra.Command, w ring.Work) error {
	return f.tend(cmd, w, (*tended).print)
}

func (f *where) verifyNodes(cmd *cobra.Command, asJSON bool) error {
	show := (*tended).print
	if asJSON {
		show = (*tended).printJSON
	}
	return f.tend(cmd, ring.Work{Do: ring.Verifies}, show)
}

// tend has the caches of the nodes tended and prints what became of it. The error has the exit status of a push.
func (f *where) tend(cmd *cobra.Command, w ring.Work, show func(*tended, io.Writer) error) error {
	c, err := f.fleet.config(cmd)
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	live := &tending{screen: newScreen(cmd.ErrOrStderr()), nodes: len(c.Nodes), at: map[string]ring.TendProgress{}}
	replies, rows, err := fleet.Tend(ctx, c, w, live.got)
	live.screen.progress("")
	if err != nil {
		return err
	}
	return (&tended{work: w, replies: replies, rows: rows, keys: f.fleet.keys}).done(cmd, show)
}

// forgetOnNodes has the caches of the nodes let go what a warmer wants.
func (f *where) forgetOnNodes(cmd *cobra.Command, warmer string) error {
	c, err := f.fleet.config(cmd)
	if err != nil {
		return err
	}
	replies, rows, err := fleet.Forget(cmd.Context(), c, warmer)
	if err != nil {
		return err
	}
	return (&tended{ring.Work{Do: ring.Unpins}, replies, rows, f.fleet.keys, warmer}).done(cmd, (*tended).print)
}

// done prints what became of the work. The error has the exit status of a push.
func (t *tended) done(cmd *cobra.Command, show func(*tended, io.Writer) error) error {
	if err := show(t, cmd.OutOrStdout()); err != nil {
		return err
	}
	if cmd.Context().Err() != nil {
		return errInterrupted
	}
	if code := (&ring.Report{Nodes: t.rows}).Status(nil, 0); code != ring.ExitAll {
		return &statusError{code: code}
	}
	return nil
}

// tending is the live line about work that takes long.
type tending struct {
	screen *screen
	nodes  int // of the command

	mu sync.Mutex
	at map[string]ring.TendProgress
}

// got says how far the node is that has the most to read.
func (t *tending) got(p ring.TendProgress) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.at[p.Node] = p
	for _, q := range t.at {
		if q.All-q.Done > p.All-p.Done {
			p = q
		}
	}
	t.screen.progress(fmt.Sprintf("%d of %d nodes read; %s has the most to do: %s of %s are read", len(t.at), t.nodes, p.Node, bytesize.Text(p.Done), bytesize.Text(p.All)))
}

// said has lines, and the nodes that each is about, in the order in which they came.
type said struct {
	lines []string
	nodes map[string][]string
}

func (s *said) add(node, line string) {
	if s.nodes == nil {
		s.nodes = map[string][]string{}
	}
	if s.nodes[line] == nil {
		s.lines = append(s.lines, line)
	}
	if !slices.Contains(s.nodes[line], node) {
		s.nodes[line] = append(s.nodes[line], node)
	}
}

// print prints each line once, with the nodes behind it.
func (s *said) print(w io.Writer) {
	for _, line := range s.lines {
		fmt.Fprintf(w, "%s\t%s\n", line, fold(s.nodes[line]))
	}
}

// print prints what the nodes did, what is the same on several once, and then why others did not.
func (t *tended) print(w io.Writer) error {
	var images, figures said
	for at, r := range t.replies {
		if r.State != "" || t.work.Do == ring.Removes && len(r.Images) == 0 && !t.rows[at].State.Good() { // its row says why
			continue
		}
		for _, i := range r.Images {
			images.add(r.Node, imageLine(t.work.Do, i))
		}
		if t.warmer != "" && len(r.Images) == 0 {
			figures.add(r.Node, fmt.Sprintf("no image that has a name there is wanted by a warmer %q", printable.Line(t.warmer)))
			continue
		}
		for _, line := range figureLines(t.work.Do, r.Tended) {
			figures.add(r.Node, line)
		}
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	images.print(table)
	figures.print(table)
	if err := table.Flush(); err != nil {
		return err
	}
	if t.warmer != "" && len(images.lines) == 0 && len(figures.lines) > 0 {
		fmt.Fprintln(w, "hint: dolly-img cache ls --nodes LIST shows the warmers that want an image")
	}
	bad := grouped(slices.DeleteFunc(slices.Clone(t.rows), func(row ring.Row) bool { return row.State.Good() }))
	printBad(table, bad)
	if err := table.Flush(); err != nil {
		return err
	}
	printHints(w, bad)
	denied := func(r ring.Row) bool { return r.State == ring.Refused && r.Cause.Fault == ring.FaultDenied }
	if slices.ContainsFunc(t.rows, denied) && fleet.OnlyLooks(t.keys) {
		fmt.Fprintln(w, "hint: the keys used here have viewer.pem only, and this takes sender.pem: dolly-img keys add sender NAME, where ca.key is, makes one; --keys DIR names other keys")
	}
	return nil
}

// imageLine says what was done with an image, or what is wrong with it.
func imageLine(do ring.Doing, i ring.TendedImage) string {
	name := i.Name
	if name == "" {
		name = string(i.Digest)
	}
	switch do {
	case ring.Verifies:
		return "bad  " + printable.Line(i.Why)
	case ring.Pins:
		return "pinned  " + printable.Line(name)
	case ring.Unpins:
		text := "unpinned  " + printable.Line(name)
		if len(i.Owners) > 0 {
			text += "; still wanted by " + printable.Line(strings.Join(i.Owners, ", "))
		}
		return text
	}
	return "removed  " + removedText(name, i.Pinned, i.Owners)
}

// figureLines says what a node has read or removed.
func figureLines(do ring.Doing, t ring.Tended) (lines []string) {
	if t.More > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", t.More))
	}
	switch {
	case do == ring.Pins || do == ring.Unpins:
		if len(t.Images) == 0 {
			lines = append(lines, "nothing to change")
		}
	case do != ring.Verifies:
		lines = append(lines, leftText(t.Blobs, t.Bytes, t.Waits, t.Over)...)
		if t.Why != "" {
			lines = append(lines, printable.Line(t.Why))
		}
	case len(t.Images)+t.More == 0:
		lines = append(lines, fmt.Sprintf("%d blobs with %s are right", t.Blobs, bytesize.Text(t.Bytes)))
	}
	return lines
}

// printJSON prints an object for each node, and at last the exit status.
func (t *tended) printJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	type bad struct {
		Ref    string `json:"ref"`
		Digest string `json:"digest"`
		Error  string `json:"error"`
	}
	for i, r := range t.replies {
		line := struct {
			Node   string     `json:"node"`
			State  ring.State `json:"state"` // that of a row of push
			Reason string     `json:"reason"`
			Blobs  int        `json:"blobs"`
			Bytes  int64      `json:"bytes"`
			Bad    []bad      `json:"bad"`
			More   int        `json:"more"`
		}{r.Node, t.rows[i].State, t.rows[i].Reason, r.Blobs, r.Bytes, []bad{}, r.More}
		for _, i := range r.Images {
			line.Bad = append(line.Bad, bad{i.Name, string(i.Digest), i.Why})
		}
		if err := enc.Encode(line); err != nil {
			return err
		}
	}
	return enc.Encode(struct {
		Exit int `json:"exit"`
	}{(&ring.Report{Nodes: t.rows}).Status(nil, 0)})
}

// lsNodes lists what the caches of nodes have.
func (f *where) lsNodes(cmd *cobra.Command, asJSON bool) error {
	c, err := f.fleet.config(cmd)
	if err != nil {
		return err
	}
	l := &listed{report: &ring.Report{}}
	if l.replies, err = fleet.Ask(cmd.Context(), c, ring.Question{All: true}); err != nil {
		return err
	}
	for _, r := range l.replies {
		l.report.Nodes = append(l.report.Nodes, ring.Row{Node: r.Node, State: cmp.Or(r.State, ring.Held), Cause: r.Cause, Reason: r.Cause.String()})
	}
	show := l.print
	if asJSON {
		show = l.printJSON
	}
	if err := show(cmd.OutOrStdout()); err != nil {
		return err
	}
	if cmd.Context().Err() != nil {
		return errInterrupted
	}
	if code := l.report.Status(nil, 0); code != ring.ExitAll {
		return &statusError{code: code}
	}
	return nil
}

// listed is what the caches of nodes have, and a row for each node: ring.Held is one that told it.
type listed struct {
	replies []ring.Reply
	report  *ring.Report
}

// print prints each image in each state once, sorted by name, and then which nodes do not tell.
func (l *listed) print(w io.Writer) error {
	var have said
	for _, r := range l.replies {
		for _, h := range r.Images {
			state := string(h.State)
			if h.Why != "" {
				state += " (" + printable.Line(h.Why) + ")"
			}
			have.add(r.Node, fmt.Sprintf("%s\t%s\t%s\t%s\t%s", orDash(h.Name), state, size(h.Bytes), orDash(strings.Join(h.Owners, ",")), shortDigest(h.Digest)))
		}
		if r.More > 0 {
			have.add(r.Node, fmt.Sprintf("and %d more\t\t\t\t", r.More))
		}
	}
	slices.Sort(have.lines)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "REFERENCE\tSTATE\tSIZE\tWANTED BY\tDIGEST\tNODES")
	have.print(t)
	if err := t.Flush(); err != nil {
		return err
	}
	bad := grouped(rowsIn(l.report, func(row ring.Row) bool { return !row.State.Good() }))
	printBad(t, bad)
	if err := t.Flush(); err != nil {
		return err
	}
	printHints(w, bad)
	return nil
}

// printJSON prints an object for each image of each node, then one for each node, and at last the exit status.
func (l *listed) printJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	for _, r := range l.replies {
		for _, h := range r.Images {
			err := enc.Encode(struct {
				Node   string         `json:"node"`
				Ref    string         `json:"ref"`
				Digest string         `json:"digest"`
				State  ring.HoldState `json:"state"`
				Size   int64          `json:"size"` // -1 is unknown, as in lacks
				Lacks  int64          `json:"lacks"`
				Wanted []string       `json:"wanted"`
				Reason string         `json:"reason"`
			}{r.Node, h.Name, string(h.Digest), h.State, h.Bytes, h.Lacks, append([]string{}, h.Owners...), h.Why})
			if err != nil {
				return err
			}
		}
	}
	for i, r := range l.replies {
		err := enc.Encode(struct {
			Node   string     `json:"node"`
			State  ring.State `json:"state"` // that of a row of push
			Reason string     `json:"reason"`
			More   int        `json:"more"` // images that are left out
		}{r.Node, l.report.Nodes[i].State, l.report.Nodes[i].Reason, r.More})
		if err != nil {
			return err
		}
	}
	return enc.Encode(struct {
		Exit int `json:"exit"`
	}{l.report.Status(nil, 0)})
}
