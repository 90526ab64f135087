package main

import (
	"fmt"
	"io"
	"slices"

	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/printable"
)

// What is said of nodes that cannot reach each other.

// unreachedShown is how many of them are named.
const unreachedShown = 8

// printStandIn says, behind the rows of a push, that the server had to stand in for nodes that cannot reach
// each other.
func printStandIn(w io.Writer, r *ring.Report) {
	left := slices.ContainsFunc(r.Unreached, func(u ring.Unreached) bool {
		return !slices.ContainsFunc(r.Nodes, func(row ring.Row) bool { return row.Node == u.To && row.State.Good() })
	})
	if len(r.Unreached) == 0 || r.Direct == 0 && !left {
		return // others fed them
	}
	who := fmt.Sprintf("the server fed %d nodes itself", r.Direct)
	switch r.Direct {
	case 0:
		who = "there are nodes that only the server could have fed"
	case 1:
		who = "the server fed 1 node itself"
	}
	more := ""
	if n := len(r.Unreached) - 1; n > 0 {
		more = fmt.Sprintf(", and %d more are like this", n)
	}
	fmt.Fprintf(w, "%s: %s%s; open it between the nodes\n", who, way(r.Unreached[0]), more)
}

// printUnreached says, behind the plan of a check, which nodes cannot reach each other.
func printUnreached(w io.Writer, r *ring.Report, quiet bool) {
	for _, line := range ways(r) {
		fmt.Fprintln(w, line)
	}
	if len(r.Unreached) > 0 {
		fmt.Fprintf(w, "hint: open TCP port %s between the nodes, in the firewall of each: a push goes from node to node\n", printable.Line(r.Unreached[0].Port))
	}
	if len(r.Unprobed) > 0 && !quiet {
		fmt.Fprintf(w, "whom these reach is not known, they speak protocol 1 or did not say: %s\n", fold(r.Unprobed))
	}
}

func way(u ring.Unreached) string {
	return fmt.Sprintf("%s cannot reach %s %s", printable.Line(u.From), printable.Line(u.To), onPort(u))
}

func onPort(u ring.Unreached) string {
	return fmt.Sprintf("on port %s (%s)", printable.Line(u.Port), printable.Line(u.Reason))
}

// ways puts the pairs of a check into lines: neighbours that do not reach each other either way for one
// reason are one.
func ways(r *ring.Report) (lines []string) {
	cut := map[[2]string]ring.Unreached{}
	for _, u := range r.Unreached {
		cut[[2]string{u.From, u.To}] = u
	}
	var single []string
	var nodes []string // that answered
	for _, row := range r.Nodes {
		if row.State == ring.Pending || row.State == ring.Held {
			nodes = append(nodes, row.Node)
		}
	}
	for i := 0; i < len(nodes)-1; {
		there, gone := cut[[2]string{nodes[i], nodes[i+1]}]
		_, both := cut[[2]string{nodes[i+1], nodes[i]}]
		end := i + 1
		for both && gone && end < len(nodes) && onPort(cut[[2]string{nodes[end-1], nodes[end]}]) == onPort(there) &&
			onPort(cut[[2]string{nodes[end], nodes[end-1]}]) == onPort(there) {
			end++
		}
		switch n := end - i; {
		case n == 2:
			lines = append(lines, fmt.Sprintf("%s and %s cannot reach each other %s", printable.Line(nodes[i]), printable.Line(nodes[i+1]), onPort(there)))
		case n > 2:
			lines = append(lines, fmt.Sprintf("%s cannot reach each other, none its neighbours in the list, %s", fold(nodes[i:end]), onPort(there)))
		default:
			for _, pair := range [][2]string{{nodes[i], nodes[i+1]}, {nodes[i+1], nodes[i]}} {
				if u, ok := cut[pair]; ok {
					single = append(single, way(u))
				}
			}
		}
		i = max(i+1, end-1)
	}
	lines = append(lines, single...)
	if more := len(lines) - unreachedShown; more > 0 {
		lines = append(lines[:unreachedShown], fmt.Sprintf("and %d more like these: --report and --json have them all", more))
	}
	return lines
}

// fedDirectly is how many nodes the server would feed itself: the first one, and each that the one before it
// cannot reach. Another node may reach it, which a push finds out: it is the most that it can be.
func fedDirectly(r *ring.Report) int {
	fed, before := 1, ""
	for _, row := range r.Nodes {
		if row.State != ring.Pending {
			continue
		}
		if slices.ContainsFunc(r.Unreached, func(u ring.Unreached) bool { return u.From == before && u.To == row.Node }) {
			fed++
		}
		before = row.Node
	}
	return fed
}

// shared is what is left of a speed for each node when the server feeds several itself, most of them
// beside the first.
func (s speed) shared(r *ring.Report, most int) speed {
	fed := fedDirectly(r)
	s.times = int64(min(fed, most+1))
	s.rate /= s.times
	if s.times > 1 {
		s.why += fmt.Sprintf(", shared by up to %d nodes that the server would feed itself", s.times)
	}
	if fed > most+1 {
		s.why += fmt.Sprintf("; up to %d would fail, since --max-direct is %d", fed-most-1, most)
	}
	return s
}
