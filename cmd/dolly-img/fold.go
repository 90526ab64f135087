package main

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/hostlist"
	"github.com/dolly-img/dolly-img/ring/printable"
)

// What is the same for many nodes is printed once.
const (
	// foldGood is the number of good rows from which on they are folded. Each has figures of its own, which are worth
	// a line while there are few.
	foldGood = 17
	// foldBad is the number of bad rows with the same reason from which on they are folded. A reason is worth reading once.
	foldBad = 2
)

// alike is a group of nodes that are in the same state for the same cause. Their addresses may differ.
type alike struct {
	state ring.State
	// cause has no address.
	cause ring.Cause
	link  string
	// code is that of the first row.
	code string

	nodes, addrs []string
	// told says that the reason was printed before, in full, and planned that this was in a plan, which had the hints, too.
	told, planned bool
}

// grouped groups the rows by state, cause and link. The groups are in the order of their first rows.
func grouped(rows []ring.Row) []*alike {
	type key struct {
		state ring.State
		cause ring.Cause
		link  string
	}
	var list []*alike
	known := map[key]*alike{}
	for _, row := range rows {
		cause := rowCause(row)
		addr := cause.Addr
		cause.Addr = ""
		k := key{row.State, cause, row.Link}
		g := known[k]
		if g == nil {
			g = &alike{state: row.State, cause: cause, link: row.Link, code: row.Code}
			known[k] = g
			list = append(list, g)
		}
		if !slices.Contains(g.nodes, row.Node) {
			g.nodes = append(g.nodes, row.Node)
		}
		if addr != "" && !slices.Contains(g.addrs, addr) {
			g.addrs = append(g.addrs, addr)
		}
	}
	return list
}

// rowCause returns the cause of a row. A row that was not made by the ring has a reason only.
func rowCause(row ring.Row) ring.Cause {
	if row.Cause == (ring.Cause{}) {
		return ring.Cause{Text: row.Reason}
	}
	return row.Cause
}

// reason returns the reason that all nodes of the group have, with their addresses in it.
func (g *alike) reason() string {
	c := g.cause
	c.Addr = places(g.addrs)
	text := c.String()
	if g.told && g.state == ring.Refused { // a node puts its advice behind what it says, in parentheses
		text, _, _ = strings.Cut(text, " (")
	}
	s := printable.Line(text)
	if g.link != "" {
		s += fmt.Sprintf(" (link %s)", printable.Line(g.link))
	}
	return s
}

// places lists the addresses, or only counts most of them if the list would be long.
func places(addrs []string) string {
	const long = 60
	all := hostlist.Fold(addrs)
	if len(addrs) < 2 || utf8.RuneCountInString(all) <= long {
		return all
	}
	return fmt.Sprintf("%s and %d more", addrs[0], len(addrs)-1)
}
