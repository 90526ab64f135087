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
					fmt.Fprintf(t, "%s\t%s\t%s\n", row.State, printable(row.Node), figures(row))
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
	if r.Elapsed > 0 && r.Sent > 0 && good > 0 {
		// The names and the decimal megabytes are those of dolly's own summary.
		seconds := r.Elapsed.Seconds()
		var received int64
		for _, row := range r.Nodes {
			received += row.Bytes
		}
		fmt.Fprintf(w, "Time: %.3f  MBytes/s: %.3f  Aggregate MBytes/s: %.3f\n",
			seconds, float64(r.Sent)/1e6/seconds, float64(received)/1e6/seconds)
	}
}

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

func figures(row ring.Row) string {
	s := fmt.Sprintf("%s received", bytesText(row.Bytes))
	if row.Skipped > 0 {
		s += fmt.Sprintf(", %s held before", bytesText(row.Skipped))
	}
	s += fmt.Sprintf(" in %.2f s", row.Seconds)
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
