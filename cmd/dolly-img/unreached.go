package main

import (
	"fmt"
	"io"
	"slices"

	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/printable"
)

// This file prints which nodes cannot reach each other.

// unreachedShown is how many lines about such nodes are printed.
const unreachedShown = 8

// printStandIn says, below the rows of a push, that the server fed nodes itself because no other node could reach
// them.
func printStandIn(w io.Writer, r *ring.Report) {
	left := slices.ContainsFunc(r.Unreached, func(u ring.Unreached) bool {
		return !slices.ContainsFunc(r.Nodes, func(row ring.Row) bool { return row.Node == u.To && row.State.Good() })
	})
	if len(r.Unreached) == 0 || r.Direct == 0 && !left {
		return // other nodes fed them
	}
	who := fmt.Sprintf("the server fed %d nodes itself", r.Direct)
	switch r.Direct {
	case 0:
		who = "some nodes could have been fed by the server only"
	case 1:
		who = "the server fed 1 node itself"
	}
	more := ""
	if n := len(r.Unreached) - 1; n > 0 {
		more = fmt.Sprintf(", and %d more are like this", n)
	}
	fmt.Fprintf(w, "%s: %s%s; open that port between the nodes\n", who, way(r.Unreached[0]), more)
}

// printUnreached says, below the plan of a check, which nodes cannot reach each other.
func printUnreached(w io.Writer, r *ring.Report, quiet bool) {
	for _, line := range ways(r) {
		fmt.Fprintln(w, line)
	}
	if len(r.Unreached) > 0 {
		fmt.Fprintf(w, "hint: open TCP port %s between the nodes, in the firewall of each: a push goes from node to node\n", printable.Line(r.Unreached[0].Port))
	}
	if len(r.Unprobed) > 0 && !quiet {
		fmt.Fprintf(w, "it is not known whom these nodes reach, as they speak protocol 1 or did not answer: %s\n", fold(r.Unprobed))
	}
}

// way says that one node cannot reach another one.
func way(u ring.Unreached) string {
	return fmt.Sprintf("%s cannot reach %s %s", printable.Line(u.From), printable.Line(u.To), onPort(u))
}

func onPort(u ring.Unreached) string {
	return fmt.Sprintf("on port %s (%s)", printable.Line(u.Port), printable.Line(u.Reason))
}

// ways returns lines about the nodes of a check that cannot reach each other. It puts neighbours into one line if none
// of them reaches the next, in both directions, for the same reason.
func ways(r *ring.Report) (lines []string) {
	cut := map[[2]string]ring.Unreached{}
	for _, u := range r.Unreached {
		cut[[2]string{u.From, u.To}] = u
	}
	var single []string
	var nodes []string // those that answered
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
			lines = append(lines, fmt.Sprintf("no node of %s can reach its neighbours in the list %s", fold(nodes[i:end]), onPort(there)))
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
		lines = append(lines[:unreachedShown], fmt.Sprintf("and %d more like these; --report and --json list all of them", more))
	}
	return lines
}

// fedDirectly returns how many nodes the server would feed itself, at most: the first one, and each node that the one
// before it cannot reach. A push may find that another node reaches it.
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

// shared divides a speed among the nodes that the server would feed itself: the first one, and at most so many
// others.
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
