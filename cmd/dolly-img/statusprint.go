package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/opencontainers/go-digest"

	"github.com/dolly-img/dolly-img/cache/warm"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/fleet"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/bytesize"
	"github.com/dolly-img/dolly-img/ring/printable"
)

// status is what nodes have and a controller knows, and the exit status that follows.
type status struct {
	replies []ring.Reply
	// list is what the controller at socket knows, or nil, and then silentWhy says why. If socket is "", none was asked.
	list      *warm.Snapshot
	socket    string
	silentWhy error
	// own says that the nodes are those of the list.
	own    bool
	images []fleet.Image
	exit   int
	// tags are the names that lead to a digest. digestText makes them.
	tags map[digest.Digest][]string
}

// print prints a line for each image, and then why nodes do not tell what they have.
func (s *status) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, image := range s.images {
		fmt.Fprintf(t, "%s\t%s\t%d of %d warm%s\n", s.imageText(image), shortDigest(image.Digest), image.Warm(), len(image.Nodes), s.others(image))
	}
	s.printSilent(t)
	if err := t.Flush(); err != nil {
		return err
	}
	answered := len(s.replies) - len(s.silent())
	if len(s.images) == 0 && answered > 0 {
		fmt.Fprintf(w, "no image has a name on any of %d nodes\n", answered)
	}
	for _, i := range s.images {
		if i.Name != "" && i.Digest == "" && answered > 0 {
			fmt.Fprintf(w, "hint: %s is not in any of %d caches; without IMAGE, status lists the names that there are\n", printable.Line(i.Name), answered)
		}
	}
	for _, r := range s.replies {
		if r.More > 0 {
			fmt.Fprintf(w, "%s has %d more images than it can list at once\n", printable.Line(r.Node), r.More)
		}
	}
	s.printController(w)
	printHints(w, grouped(s.silent()))
	return nil
}

// imageText returns the name of an image, with its platform if the list has several.
func (s *status) imageText(image fleet.Image) string {
	switch l := image.Listed; {
	case image.Name == "" && l != nil:
		return printable.Line(l.Called())
	case l != nil && l.Platform != "" && len(s.variants(l.Name)) > 1:
		return printable.Line(image.Name + " (" + l.Platform + ")")
	}
	return orDash(image.Name)
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

// printNode lists all images of the only node, and those that it should have.
func (s *status) printNode(w io.Writer) error {
	r := s.replies[0]
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if r.State != "" {
		s.printSilent(t)
		err := t.Flush()
		for _, i := range s.images {
			if n := i.Nodes[0]; n.Listed != nil && n.Listed.State == warm.NodeAway {
				fmt.Fprintf(w, "the controller says: away since %s\n", timeText(n.Listed.Since, s.list.At))
				break
			}
		}
		s.printController(w)
		printHints(w, grouped(s.silent()))
		return err
	}
	fmt.Fprintln(t, "REFERENCE\tSTATE\tSIZE\tWANTED BY\tDIGEST")
	for _, i := range s.images {
		n := i.Nodes[0]
		h, state := n.Holding, ""
		switch g := s.lacks(i, n); {
		case n.Listed == nil: // nobody says what it should be
			if state = string(h.State); h.Why != "" {
				state += " (" + printable.Line(h.Why) + ")"
			}
		case g.state == "":
			state = string(n.State)
		default:
			state = s.label(&g, i.Listed)
		}
		bytes := h.Bytes
		if h.Name == "" {
			bytes = -1
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", s.imageText(i), state, size(bytes), orDash(strings.Join(h.Owners, ",")), orDash(string(cmp.Or(h.Digest, i.Digest))))
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
	s.printController(w)
	return err
}

// size writes a number of bytes of which -1 is unknown.
func size(n int64) string {
	if n < 0 {
		return "-"
	}
	return bytesize.Text(n)
}
