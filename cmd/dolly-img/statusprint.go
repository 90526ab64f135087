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
	// unasked says why the nodes were not asked. Then all that is known is the controller's word, and replies say nothing.
	unasked error
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
		fmt.Fprintf(t, "%s\t%s\t%s%s\n", s.imageText(image), shortDigest(image.Digest), s.warmText(image), s.others(image))
	}
	s.printSilent(t)
	if err := t.Flush(); err != nil {
		return err
	}
	answered := 0
	for _, r := range s.replies {
		if r.State == "" {
			answered++
		}
	}
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

// warmText returns on how many nodes an image is warm, and who says so if it is not they.
func (s *status) warmText(image fleet.Image) string {
	text := fmt.Sprintf("%d of %d warm", s.warm(image), len(image.Nodes))
	if s.unasked != nil {
		text += ", says the controller"
	}
	return text
}

// warm returns on how many nodes an image is warm, by the word of the controller if they were not asked.
func (s *status) warm(image fleet.Image) (n int) {
	for _, node := range image.Nodes {
		if good(node, true) {
			n++
		}
	}
	return n
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
		if r.State != "" && r.State != fleet.NotAsked {
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
	if len(s.silent()) > 0 {
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
		h, state := n.Holding, s.nodeText(i, n)
		bytes := h.Bytes
		if h.Name == "" {
			bytes = -1
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", s.imageText(i), state, size(bytes), orDash(strings.Join(h.Owners, ",")), orDash(string(cmp.Or(h.Digest, i.Digest))))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if s.unasked != nil {
		s.printController(w)
		return nil
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

// nodeText says what an image is on the only node.
func (s *status) nodeText(i fleet.Image, n fleet.Node) string {
	h, l := n.Holding, i.Listed
	switch g := s.lacks(i, n); {
	case n.Listed == nil && h.Why != "": // nobody says what it should be
		return string(h.State) + " (" + printable.Line(h.Why) + ")"
	case n.Listed == nil:
		return string(h.State)
	case g.state != "":
		return s.label(&g, l)
	case n.State == fleet.Warm:
		return string(n.State)
	case n.State == fleet.Unasked && n.Listed.State == warm.NodeWarm:
		return "warm, says the controller"
	case cmp.Or(l.Reason, l.Stale) != "":
		return string(fleet.Unknown) + " (" + printable.Line(cmp.Or(l.Reason, l.Stale)) + ")"
	}
	return string(fleet.Unknown)
}

// size writes a number of bytes of which -1 is unknown.
func size(n int64) string {
	if n < 0 {
		return "-"
	}
	return bytesize.Text(n)
}
