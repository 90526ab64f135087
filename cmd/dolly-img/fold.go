package main

import (
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/hostlist"
	"github.com/dolly-img/dolly-img/ring/printable"
)

// Of many nodes the same is said once. Good rows have figures of their own, which are worth a line each
// while they are few; a reason is worth reading once, whether two nodes have it or five hundred.
const (
	foldGood = 17 // good rows, from which on they are folded
	foldBad  = 2  // bad rows with equal reasons, from which on they are
)

// alike is nodes in one state for one cause, but for their addresses.
type alike struct {
	state ring.State
	cause ring.Cause // without an address
	link  string

	nodes, addrs []string
}

// grouped puts together what has the same state, cause and link, in the order of the first of each.
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
			g = &alike{state: row.State, cause: cause, link: row.Link}
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

// rowCause is the cause of a row; one that was not made by the ring has a reason only.
func rowCause(row ring.Row) ring.Cause {
	if row.Cause == (ring.Cause{}) {
		return ring.Cause{Text: row.Reason}
	}
	return row.Cause
}

// reason is the reason of all nodes of the group, with all their addresses.
func (g *alike) reason() string {
	c := g.cause
	c.Addr = places(g.addrs)
	s := printable.Line(c.String())
	if g.link != "" {
		s += fmt.Sprintf(" (link %s)", printable.Line(g.link))
	}
	return s
}

// places names addresses: all of them while that is short.
func places(addrs []string) string {
	const long = 60
	all := hostlist.Fold(addrs)
	if len(addrs) < 2 || utf8.RuneCountInString(all) <= long {
		return all
	}
	return fmt.Sprintf("%s and %d more", addrs[0], len(addrs)-1)
}
