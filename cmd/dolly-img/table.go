package main

import (
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/bytesize"
	"github.com/dolly-img/dolly-img/ring/hostlist"
	"github.com/dolly-img/dolly-img/ring/printable"
)

// printTable prints what became of every node, and then the figures. What says of which thing the report has the
// digest, have says what the good nodes did, and switched what those did that received nothing. What news printed of bad nodes is not printed again in full.
func printTable(w io.Writer, r *ring.Report, what, have string, quiet bool, news *progress, switched string) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	good := r.Count()
	if !quiet {
		printGood(t, r, good, switched)
	}
	bad := grouped(rowsIn(r, func(row ring.Row) bool { return !row.State.Good() }))
	printBad(t, news.shorten(bad))
	t.Flush()
	printHints(w, slices.DeleteFunc(bad, func(g *alike) bool { return g.planned }))
	if quiet || r.Transfer == "" {
		return
	}
	fmt.Fprintf(w, "%d of %d nodes %s", good, len(r.Nodes), have)
	if good > 0 {
		fmt.Fprintf(w, ": %s %s, %s", what, r.Digest, bytesize.Text(r.Bytes))
	}
	fmt.Fprintln(w)
	if good > 0 && r.SHA256 != "" && r.SHA256 != r.Digest {
		fmt.Fprintf(w, "the file is %s, as sha256sum has it\n", r.SHA256)
	}
	if good > 0 && r.SIF != "" {
		fmt.Fprintf(w, "the SIF file is %s, as sha256sum has it\n", r.SIF)
	}
	if good > 0 && r.Kept != "" {
		fmt.Fprintf(w, "kept as %s\n", printable.Line(r.Kept))
	}
	printRates(w, r)
}

// printRates prints a summary as dolly prints it, with the same names and decimal megabytes. The rate is the bytes
// of the image divided by the time from the first byte sent to the last confirmation, and the aggregate rate
// is that of all nodes that committed. Beside it stands what the server sent, which in a ring is the image once, without
// the zeros in it, and how fast that was: what went over its link.
func printRates(w io.Writer, r *ring.Report) {
	committed, holders, held := 0, 0, int64(0)
	for _, row := range r.Nodes {
		if row.State != ring.Committed {
			continue
		}
		committed++
		if matters(row.Skipped, r.Bytes) {
			holders, held = holders+1, held+row.Skipped
		}
	}
	seconds := r.Elapsed.Seconds()
	if seconds <= 0 || r.Sent <= 0 || r.Bytes <= 0 || committed == 0 {
		return
	}
	rate := float64(r.Bytes) / 1e6 / seconds
	sent := bytesize.Text(r.Sent)
	if times := float64(r.Sent) / float64(r.Bytes); times >= 1.05 {
		sent += fmt.Sprintf(", %.1f times the image", times)
	}
	if apart := math.Abs(float64(r.Sent) - float64(r.Bytes)); apart >= 0.05*float64(r.Bytes) {
		sent += fmt.Sprintf(", at %.3f MBytes/s", float64(r.Sent)/1e6/seconds)
	}
	fmt.Fprintf(w, "Time: %.3f  MBytes/s: %.3f  Aggregate MBytes/s: %.3f  server sent %s\n", seconds, rate, rate*float64(committed), sent)
	if holders > 0 {
		fmt.Fprintf(w, "the rates count whole images, also what was held before: %s on %d of %d nodes\n", bytesize.Text(held), holders, committed)
	}
}

// matters reports whether n bytes of the image are worth mentioning, which is one in a hundred or more. Nodes often have
// the manifest and the config of an image before, and these are too small to mention.
func matters(n, image int64) bool { return n > 0 && n >= image/100 }

// printGood prints a row for each good node, or, if there are many, one for all nodes that did the same.
func printGood(w io.Writer, r *ring.Report, good int, switched string) {
	rows := rowsIn(r, func(row ring.Row) bool { return row.State.Good() })
	if good < foldGood {
		for _, row := range rows {
			fmt.Fprintf(w, "%s\t%s\t%s\n", row.State, printable.Line(row.Node), figures(row, r.Bytes, r.Waited, switched))
		}
		return
	}
	for _, g := range grouped(rows) {
		printGroup(w, string(g.state), g)
	}
}

// printBad prints the bad rows, one for all nodes with the same reason.
func printBad(w io.Writer, bad []*alike) {
	for _, g := range bad {
		if len(g.nodes) >= foldBad {
			printGroup(w, string(g.state), g)
		} else {
			fmt.Fprintf(w, "%s\t%s\t%s\n", g.state, fold(g.nodes), g.reason())
		}
	}
}

// printGroup prints one row for a group of nodes: what became of them, how many they are, their names, and the reason.
func printGroup(w io.Writer, what string, g *alike) {
	fmt.Fprintf(w, "%s %d\t%s", what, len(g.nodes), fold(g.nodes))
	if why := g.reason(); why != "" {
		fmt.Fprintf(w, "\t%s", why)
	}
	fmt.Fprintln(w)
}

// figures returns the text of a good row. Image is the size of the image in bytes. Its seconds count from the first byte on, as
// those of the summary do; waited is the time before. Switched is
// what a node did that had all of it.
func figures(row ring.Row, image int64, waited time.Duration, switched string) string {
	var s string
	took := max(0, row.Seconds-waited.Seconds())
	switch held := matters(row.Skipped, image); {
	case row.State == ring.Held:
		s = "had all of it before, nothing to switch"
	case row.Bytes == 0 && held:
		s = "had all of it before, and " + switched
	case held:
		s = fmt.Sprintf("%s received, %s held before, in %.2f s", bytesize.Text(row.Bytes), bytesize.Text(row.Skipped), took)
	default:
		s = fmt.Sprintf("%s received in %.2f s", bytesize.Text(row.Bytes), took)
	}
	if row.Reason != "" {
		s += ", " + printable.Line(row.Reason)
	}
	return s
}

func rowsIn(r *ring.Report, want func(ring.Row) bool) []ring.Row {
	var rows []ring.Row
	for _, row := range r.Nodes {
		if want(row) {
			rows = append(rows, row)
		}
	}
	return rows
}

func namesOf(rows []ring.Row) []string {
	names := make([]string, len(rows))
	for i, row := range rows {
		names[i] = row.Node
	}
	return names
}

func fold(names []string) string { return printable.Line(hostlist.Fold(names)) }

// again returns the command that serves these nodes, with all other flags as in cmd. --yes-overwrite counts these nodes, and
// --report names another file, so that the report of this run stays. It leaves out --min-success, which counted other nodes.
func again(cmd *cobra.Command, nodes []string) string {
	words := strings.Fields(cmd.CommandPath())
	for _, arg := range cmd.Flags().Args() {
		words = append(words, quote(arg))
	}
	words = append(words, "--nodes", quote(hostlist.Fold(nodes)))
	cmd.Flags().Visit(func(f *pflag.Flag) {
		switch {
		case f.Name == "nodes" || f.Name == "exclude" || f.Name == "min-success":
		case f.Name == "yes-overwrite":
			words = append(words, "--"+f.Name, strconv.Itoa(len(nodes)))
		case f.Name == "report":
			words = append(words, "--"+f.Name, quote(nextReport(f.Value.String())))
		case f.Value.Type() == "bool" && f.Value.String() == "true":
			words = append(words, "--"+f.Name)
		case f.Value.Type() == "bool":
			words = append(words, "--"+f.Name+"="+f.Value.String())
		case f.Value.Type() == "stringArray":
			for _, value := range f.Value.(pflag.SliceValue).GetSlice() {
				words = append(words, "--"+f.Name, quote(value))
			}
		case f.NoOptDefVal != "": // its value is optional, so that the next word may not be it
			words = append(words, "--"+f.Name+"="+quote(f.Value.String()))
		default:
			words = append(words, "--"+f.Name, quote(f.Value.String()))
		}
	})
	return strings.Join(words, " ")
}

// nextReport returns the name of the report of another run: r-2.json after r.json, and r-3.json after that.
func nextReport(path string) string {
	ext := filepath.Ext(path)
	stem, n := strings.TrimSuffix(path, ext), 2
	if before, number, ok := cutLast(stem, "-"); ok {
		if last, err := strconv.Atoi(number); err == nil && last > 1 && last < 1000 {
			stem, n = before, last+1
		}
	}
	return fmt.Sprintf("%s-%d%s", stem, n, ext)
}

// cutLast cuts s around the last sep.
func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// quote writes s so that a shell reads it back as one word.
func quote(s string) string {
	const safe = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%_+=:,./-"
	if s != "" && strings.Trim(s, safe) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
