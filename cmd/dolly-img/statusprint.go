package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/opencontainers/go-digest"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/fleet"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/bytesize"
	"github.com/dolly-img/dolly-img/ring/printable"
)

// status is what nodes have, and the exit status that follows.
type status struct {
	replies []ring.Reply
	images  []fleet.Image
	exit    int
}

// sum sums up the replies, for the images that are wanted, or for all that nodes name if none is.
func sum(replies []ring.Reply, list []wanted) *status {
	s := &status{replies: replies}
	names := fleet.Names(replies)
	for _, w := range list {
		s.images = append(s.images, w.find(replies, names)...)
	}
	if len(list) == 0 {
		for _, name := range names {
			s.images = append(s.images, fleet.Of(replies, name, ""))
		}
	}
	r := &ring.Report{}
	for i, reply := range replies {
		row := ring.Row{Node: reply.Node, State: ring.Held}
		switch {
		case reply.State != "":
			row.State = reply.State
		case len(list) == 0:
			if slices.ContainsFunc(reply.Images, func(h ring.HeldImage) bool { return h.State != ring.HoldsAll }) {
				row.State = ring.Failed
			}
		case slices.ContainsFunc(s.images, func(image fleet.Image) bool { return image.Nodes[i].State != fleet.Warm }):
			row.State = ring.Failed
		}
		r.Nodes = append(r.Nodes, row)
	}
	s.exit = r.Status(nil, 0)
	return s
}

// print prints a line for each image, and then why nodes do not tell what they have.
func (s *status) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, image := range s.images {
		fmt.Fprintf(t, "%s\t%s\t%d of %d warm%s\n", orDash(image.Name), shortDigest(image.Digest), image.Warm(), len(image.Nodes), others(image))
	}
	s.printSilent(t)
	if err := t.Flush(); err != nil {
		return err
	}
	answered := len(s.replies) - len(s.silent())
	if len(s.images) == 0 && answered > 0 {
		fmt.Fprintf(w, "no image has a name on any of %d nodes\n", answered)
	}
	for _, r := range s.replies {
		if r.More > 0 {
			fmt.Fprintf(w, "%s has %d more images than it can list at once\n", printable.Line(r.Node), r.More)
		}
	}
	printHints(w, grouped(s.silent()))
	return nil
}

// silent returns rows for the nodes that did not tell what they have.
func (s *status) silent() (rows []ring.Row) {
	for _, r := range s.replies {
		if r.State != "" {
			rows = append(rows, ring.Row{Node: r.Node, State: r.State, Cause: r.Cause, Reason: r.Cause.String()})
		}
	}
	return rows
}

func (s *status) printSilent(w io.Writer) { printBad(w, grouped(s.silent())) }

// shownDigits is how many digits of a digest are printed for people: as many as container tools print.
const shownDigits = 12

func shortDigest(d digest.Digest) string {
	algorithm, hex, ok := strings.Cut(string(d), ":")
	if !ok || len(hex) <= shownDigits {
		return orDash(string(d))
	}
	return printable.Line(algorithm + ":" + hex[:shownDigits] + "…")
}

// others names the nodes that are not warm, those in the same state together.
func others(image fleet.Image) string {
	type group struct {
		label string
		nodes []string
	}
	var groups []*group
	for _, state := range []fleet.State{fleet.Behind, fleet.Partly, fleet.Unnamed, fleet.Missing, fleet.Refused, fleet.Failed, fleet.Away} {
		for _, n := range image.Nodes {
			if n.State != state {
				continue
			}
			label := string(state)
			switch why := n.Holding.Why; {
			case state == fleet.Behind:
				label += " (" + shortDigest(n.Holding.Named) + ")"
			case state == fleet.Partly && why != "":
				label += " (" + printable.Line(why) + ")"
			case state == fleet.Partly && n.Holding.Lacks > 0:
				label += " (lacks " + bytesize.Text(n.Holding.Lacks) + ")"
			}
			i := slices.IndexFunc(groups, func(g *group) bool { return g.label == label })
			if i < 0 {
				i, groups = len(groups), append(groups, &group{label: label})
			}
			groups[i].nodes = append(groups[i].nodes, n.Node)
		}
	}
	text := ""
	for _, g := range groups {
		text += "; " + g.label + ": " + fold(g.nodes)
	}
	return text
}

// printNode lists all images of the only node.
func (s *status) printNode(w io.Writer) error {
	r := s.replies[0]
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if r.State != "" {
		s.printSilent(t)
		err := t.Flush()
		printHints(w, grouped(s.silent()))
		return err
	}
	fmt.Fprintln(t, "REFERENCE\tSTATE\tSIZE\tWANTED BY\tDIGEST")
	for _, h := range slices.SortedFunc(slices.Values(r.Images), func(a, b ring.HeldImage) int { return cmp.Compare(a.Name, b.Name) }) {
		state := string(h.State)
		if h.Why != "" {
			state += " (" + printable.Line(h.Why) + ")"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", orDash(h.Name), state, size(h.Bytes), orDash(strings.Join(h.Owners, ",")), orDash(string(h.Digest)))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	var figures []string
	if r.More > 0 {
		figures = append(figures, fmt.Sprintf("and %d more images", r.More))
	}
	figures = append(figures, "room for "+size(r.Free))
	if r.Wanted > 0 {
		figures = append(figures, "wanted images hold "+size(r.Wanted))
	}
	if r.Max > 0 {
		figures = append(figures, "the cache may have "+size(r.Max))
	}
	if r.Reserve > 0 {
		figures = append(figures, size(r.Reserve)+" stay free")
	}
	_, err := fmt.Fprintln(w, strings.Join(figures, "; "))
	return err
}

// size writes a number of bytes of which -1 is unknown.
func size(n int64) string {
	if n < 0 {
		return "-"
	}
	return bytesize.Text(n)
}

// statusNode and statusImage are the lines of --json.
type statusNode struct {
	Node     string     `json:"node"`
	State    ring.State `json:"state"` // "answered", or that of a row of push
	Fault    ring.Fault `json:"fault"`
	Reason   string     `json:"reason"`
	Software string     `json:"software"`
	Platform string     `json:"platform"`
	Free     int64      `json:"free"`
	Max      int64      `json:"max"`
	Reserve  int64      `json:"reserve"`
	Wanted   int64      `json:"wanted"`
	More     int        `json:"more"`
}

type statusImage struct {
	Image  string          `json:"image"`
	Digest digest.Digest   `json:"digest"`
	Warm   int             `json:"warm"`
	Nodes  []statusOnANode `json:"nodes"`
}

type statusOnANode struct {
	Node   string        `json:"node"`
	State  fleet.State   `json:"state"`
	Named  digest.Digest `json:"named"`
	Bytes  int64         `json:"bytes"`
	Lacks  int64         `json:"lacks"`
	Owners []string      `json:"owners"`
	Reason string        `json:"reason"`
}

// printJSON prints an object for each node, then one for each image, and at last the exit status.
func (s *status) printJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	for _, r := range s.replies {
		err := enc.Encode(statusNode{
			r.Node, cmp.Or(r.State, "answered"), r.Cause.Fault, r.Cause.String(), r.Software, r.Platform,
			r.Free, r.Max, r.Reserve, r.Wanted, r.More,
		})
		if err != nil {
			return err
		}
	}
	for _, image := range s.images {
		line := statusImage{image.Name, image.Digest, image.Warm(), []statusOnANode{}}
		for _, n := range image.Nodes {
			h := n.Holding
			line.Nodes = append(line.Nodes, statusOnANode{n.Node, n.State, h.Named, h.Bytes, h.Lacks, append([]string{}, h.Owners...), h.Why})
		}
		if err := enc.Encode(line); err != nil {
			return err
		}
	}
	return enc.Encode(struct {
		Exit int `json:"exit"`
	}{s.exit})
}
