package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/hostlist"
)

// foldFrom is the number of good rows from which on they are folded to one for each
// state: what matters of a thousand nodes is the ones that failed.
const foldFrom = 17

// printTable prints what became of every node, then the figures; what is the report's
// digest one of, have what the good ones did, and kept the name in the caches, "" for none. A node that failed always has a
// row of its own.
func printTable(w io.Writer, r *ring.Report, what, have, kept string, quiet bool) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	good := r.Count()
	if !quiet {
		if good < foldFrom {
			for _, row := range r.Nodes {
				if row.State.Good() {
					fmt.Fprintf(t, "%s\t%s\t%s\n", row.State, printable(row.Node), figures(row, r.Bytes))
				}
			}
		} else {
			for _, state := range []ring.State{ring.Committed, ring.Held} {
				if names := nodesIn(r, func(row ring.Row) bool { return row.State == state }); len(names) > 0 {
					fmt.Fprintf(t, "%s %d\t%s\n", state, len(names), fold(names))
				}
			}
		}
	}
	for _, row := range r.Nodes {
		if !row.State.Good() {
			fmt.Fprintf(t, "%s\t%s\t%s\n", row.State, printable(row.Node), reason(row))
		}
	}
	t.Flush()
	for _, hint := range keyHints(r) {
		fmt.Fprintf(w, "hint: %s\n", hint)
	}
	if quiet || r.Transfer == "" {
		return
	}
	fmt.Fprintf(w, "%d of %d nodes %s", good, len(r.Nodes), have)
	if good > 0 {
		fmt.Fprintf(w, ": %s %s, %s", what, r.Digest, bytesText(r.Bytes))
	}
	fmt.Fprintln(w)
	if good > 0 && kept != "" {
		fmt.Fprintf(w, "kept as %s\n", printable(kept))
	}
	printRates(w, r)
}

// printRates prints the summary that dolly has, with its names and decimal megabytes: the bytes of the
// image by the time from the first byte sent to the last confirmation, and the same for all nodes that
// committed. What the server sent stands beside it: of a ring it is the image once.
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
	sent := bytesText(r.Sent)
	if times := float64(r.Sent) / float64(r.Bytes); times >= 1.05 {
		sent += fmt.Sprintf(", %.1f times the image", times)
	}
	fmt.Fprintf(w, "Time: %.3f  MBytes/s: %.3f  Aggregate MBytes/s: %.3f  server sent %s\n", seconds, rate, rate*float64(committed), sent)
	if holders > 0 {
		fmt.Fprintf(w, "the rates count whole images, also the %s that %d of %d nodes held before\n", bytesText(held), holders, committed)
	}
}

// matters says whether so many bytes of the image are worth a word: at least one in a hundred. The
// manifest and the config of an image are often there before, and are nothing.
func matters(n, image int64) bool { return n > 0 && n >= image/100 }

// keyHints are what to do about certificates that were refused, by us or by nodes. The
// rows have only what the handshake said.
func keyHints(r *ring.Report) []string {
	foreign := func(row ring.Row) bool {
		return row.State == ring.Refused && (strings.Contains(row.Reason, "unknown authority") ||
			strings.Contains(row.Reason, "unknown certificate authority") || strings.Contains(row.Reason, "this is cluster"))
	}
	var hints []string
	if names := nodesIn(r, foreign); len(names) > 0 {
		hints = append(hints, fmt.Sprintf("the keys of %s are of another cluster than those used here: name the right ones with --keys, "+
			"or install its ca.pem and node.pem there; dolly-img keys show tells them apart", fold(names)))
	}
	unsaid := func(row ring.Row) bool {
		return row.State == ring.Refused && !foreign(row) && strings.Contains(row.Reason, "refused our certificate")
	}
	if names := nodesIn(r, unsaid); len(names) > 0 {
		hints = append(hints, fmt.Sprintf("the log of %s says what is wrong with our certificate; dolly-img keys show looks at the keys here", fold(names)))
	}
	return hints
}

// figures are what a good row says of an image of so many bytes.
func figures(row ring.Row, image int64) string {
	var s string
	switch held := matters(row.Skipped, image); {
	case row.State == ring.Held || row.Bytes == 0 && held:
		s = "had all of it before"
	case held:
		s = fmt.Sprintf("%s received, %s held before, in %.2f s", bytesText(row.Bytes), bytesText(row.Skipped), row.Seconds)
	default:
		s = fmt.Sprintf("%s received in %.2f s", bytesText(row.Bytes), row.Seconds)
	}
	if row.Reason != "" {
		s += ", " + printable(row.Reason)
	}
	return s
}

func reason(row ring.Row) string {
	s := printable(row.Reason)
	if row.Link != "" {
		s += fmt.Sprintf(" (link %s)", printable(row.Link))
	}
	return s
}

func nodesIn(r *ring.Report, want func(ring.Row) bool) []string {
	var names []string
	for _, row := range r.Nodes {
		if want(row) {
			names = append(names, row.Node)
		}
	}
	return names
}

func fold(names []string) string { return printable(hostlist.Fold(names)) }

// again is the command that serves nodes with everything else as in cmd. A threshold
// for success counted other nodes, and a report would replace the one of this run: they
// are left out.
func again(cmd *cobra.Command, nodes []string) string {
	words := strings.Fields(cmd.CommandPath())
	for _, arg := range cmd.Flags().Args() {
		words = append(words, quote(arg))
	}
	words = append(words, "--nodes", quote(hostlist.Fold(nodes)))
	cmd.Flags().Visit(func(f *pflag.Flag) {
		switch {
		case f.Name == "nodes" || f.Name == "exclude" || f.Name == "min-success" || f.Name == "report":
		case f.Value.Type() == "bool" && f.Value.String() == "true":
			words = append(words, "--"+f.Name)
		case f.Value.Type() == "bool":
			words = append(words, "--"+f.Name+"="+f.Value.String())
		default:
			words = append(words, "--"+f.Name, quote(f.Value.String()))
		}
	})
	return strings.Join(words, " ")
}

// quote writes s so that a shell reads it back as one word.
func quote(s string) string {
	const safe = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%_+=:,./-"
	if s != "" && strings.Trim(s, safe) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
