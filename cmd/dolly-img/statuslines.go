package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/dolly-img/dolly-img/cache/warm"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/fleet"
	"github.com/dolly-img/dolly-img/ring/bytesize"
	"github.com/dolly-img/dolly-img/ring/printable"
)

// mostReasons is how many reasons of the same state an image's line has. A line is for people, and --json has all of them.
const mostReasons = 3

// lacking is a group of nodes that lack an image for the same reason.
type lacking struct {
	// state is the word for it, and detail stands behind it in parentheses.
	state, detail string
	nodes         []string
	since, next   span
}

// span is from the first to the last of some times.
type span struct{ first, last time.Time }

func (s *span) add(t time.Time) {
	if t.IsZero() {
		return
	}
	if s.first.IsZero() || t.Before(s.first) {
		s.first = t
	}
	if t.After(s.last) {
		s.last = t
	}
}

// text returns the times as a clock of this machine shows them, with the day if it is not that of now.
func (s span) text(now time.Time) string {
	first, last := timeText(s.first, now), timeText(s.last, now)
	if first == last {
		return first
	}
	return first + " to " + last
}

func timeText(t, now time.Time) string {
	t, now = t.Local(), now.Local()
	switch {
	case t.YearDay() == now.YearDay() && t.Year() == now.Year():
		return t.Format("15:04")
	case t.Year() == now.Year():
		return t.Format("Jan 2 15:04")
	}
	return t.Format("2006-01-02 15:04")
}

// controllerKnows are the states of which only a controller knows. It is believed as long as the node lacks the image.
var controllerKnows = []warm.NodeState{warm.NodeWarming, warm.NodeFull, warm.NodeFailed}

// lackingStates are the words for what a node may be in place of warm, in the order in which a line has them.
var lackingStates = []string{"warming", "behind", "partly", "unnamed", "missing", "unsaid", "full", "conflict", "failed", "refused", "unknown", "away"}

// lacks returns why a node is not warm, as a group of its own. The state is "" if it is, or if nobody knows.
func (s *status) lacks(image fleet.Image, n fleet.Node) (g lacking) {
	l := n.Listed
	switch {
	case n.State == fleet.Warm || n.State == fleet.Unknown:
		return g
	case n.State == fleet.Unasked && (l.State == warm.NodeWarm || image.Digest == ""):
		return g
	case n.State == fleet.Unasked:
		g.state, g.detail = string(l.State), printable.Line(l.Reason)
		if l.State == warm.NodeAway {
			g.since.add(l.Since)
		} else {
			g.next.add(l.Next)
		}
		return g
	case n.State == fleet.Away && l != nil && l.State == warm.NodeAway:
		g.since.add(l.Since)
	case n.State == fleet.Away || n.State == fleet.Refused || n.State == fleet.Failed:
	case l != nil && slices.Contains(controllerKnows, l.State) && !(n.State == fleet.Unnamed && l.State == warm.NodeFull):
		g.state, g.detail = string(l.State), printable.Line(l.Reason)
		g.next.add(l.Next)
		return g
	}
	g.state = string(n.State)
	switch h := n.Holding; {
	case n.State == fleet.Behind:
		g.detail = s.digestText(image.Name, h.Named)
	case n.State == fleet.Conflict:
		g.detail = printable.Line(fleet.OwnedBy(h.NameOwner))
	case n.State == fleet.Partly && h.Why != "":
		g.detail = printable.Line(h.Why)
	case n.State == fleet.Partly && h.Lacks > 0:
		g.detail = "lacks " + bytesize.Text(h.Lacks)
	}
	return g
}

// lackers returns the nodes that are not warm, in groups.
func (s *status) lackers(image fleet.Image) (groups []*lacking) {
	reasons := map[string]int{}
	for _, n := range image.Nodes {
		one := s.lacks(image, n)
		if one.state == "" {
			continue
		}
		same := func(g *lacking) bool { return g.state == one.state && g.detail == one.detail }
		i := slices.IndexFunc(groups, same)
		if i < 0 && reasons[one.state] == mostReasons {
			one.detail = "others"
			i = slices.IndexFunc(groups, same)
		} else if i < 0 {
			reasons[one.state]++
		}
		if i < 0 {
			i, groups = len(groups), append(groups, &lacking{state: one.state, detail: one.detail})
		}
		g := groups[i]
		g.nodes = append(g.nodes, n.Node)
		g.since.add(one.since.first)
		g.next.add(one.next.first)
	}
	slices.SortStableFunc(groups, func(a, b *lacking) int {
		return slices.Index(lackingStates, a.state) - slices.Index(lackingStates, b.state)
	})
	return groups
}

// label returns the words for a group.
func (s *status) label(g *lacking, l *warm.ImageStatus) string {
	text := g.state
	if g.state == string(warm.NodeWarming) {
		return text + rateText(l)
	}
	if !g.since.first.IsZero() {
		text += " since " + g.since.text(s.list.At)
	}
	detail := g.detail
	if !g.next.first.IsZero() {
		detail = strings.TrimPrefix(detail+"; next try "+g.next.text(s.list.At), "; ")
	}
	if detail != "" {
		text += " (" + detail + ")"
	}
	return text
}

// rateText returns how fast the rings of an image are, and how long they still take.
func rateText(l *warm.ImageStatus) (text string) {
	if l.Rate > 0 {
		text += " at " + bytesize.Text(l.Rate) + "/s"
	}
	if l.Left > 0 {
		text += ", " + clock(l.Left) + " left"
	}
	return text
}

// others returns what an image's line has behind the nodes that are warm: what becomes of it, and the other nodes, those in the same state together.
func (s *status) others(image fleet.Image) (text string) {
	groups := s.lackers(image)
	l := image.Listed
	if l != nil && (s.warm(image) < len(image.Nodes) || len(image.Nodes) == 0) {
		runs := slices.ContainsFunc(groups, func(g *lacking) bool { return g.state == string(warm.NodeWarming) })
		switch {
		case l.State == warm.ImageBlocked && l.Reason != l.Stale:
			text += "; blocked: " + printable.Line(l.Reason)
		case l.State == warm.ImageWarming && !runs:
			text += "; warming" + rateText(l)
		case l.State == warm.ImageDegraded, l.State == warm.ImageBlocked:
			text += "; " + string(l.State)
		}
	}
	if l != nil && l.Stale != "" {
		text += "; stale since " + timeText(l.Since, s.list.At) + ": " + printable.Line(l.Stale)
	}
	for _, g := range groups {
		text += "; " + s.label(g, l) + ": " + fold(g.nodes)
	}
	return text
}

// digestText returns a digest for people: the tag under which nodes or the list have it too, if there is one, else its first digits.
func (s *status) digestText(name string, d digest.Digest) string {
	repository, _, _ := strings.Cut(path.Base(name), ":")
	repository = path.Join(path.Dir(name), repository) + ":"
	if s.tags == nil {
		s.tags = map[digest.Digest][]string{}
		add := func(name string, d digest.Digest) {
			if name != "" && d != "" && !slices.Contains(s.tags[d], name) {
				s.tags[d] = append(s.tags[d], name)
			}
		}
		for _, r := range s.replies {
			for _, h := range r.Images {
				add(h.Name, h.Named)
			}
		}
		if s.list != nil {
			for _, i := range s.list.Images {
				add(i.Name, i.Digest)
			}
		}
	}
	for _, other := range s.tags[d] {
		if tag, ok := strings.CutPrefix(other, repository); ok && other != name {
			return printable.Line(tag)
		}
	}
	return shortDigest(d)
}

// printController prints what people should know of the controller itself, or that there is none.
func (s *status) printController(w io.Writer) {
	l := s.list
	if s.unasked != nil {
		fmt.Fprintf(w, "the nodes were not asked (%s), and all of this is the controller's word; ca.pem and viewer.pem, which dolly-img keys init made, let status ask them\n",
			printable.Line(s.unasked.Error()))
	}
	const without = "times, next tries and rates are left out"
	switch {
	case s.socket == "":
		return
	case errors.Is(s.silentWhy, fs.ErrNotExist):
		fmt.Fprintf(w, "no controller at %s: %s\n", printable.Line(s.socket), without)
		return
	case l == nil:
		fmt.Fprintf(w, "%s: %s\n", printable.Line(s.silentWhy.Error()), without)
		if hint := hintOf(s.silentWhy); hint != "" {
			fmt.Fprintf(w, "hint: %s\n", hint)
		}
		return
	}
	if l.Refused != "" {
		fmt.Fprintf(w, "the list is refused since %s, and the one before stands: %s\n", timeText(l.RefusedSince, l.At), printable.Line(l.Refused))
	}
	if l.Trouble != "" {
		fmt.Fprintf(w, "the controller cannot keep its state since %s: %s\n", timeText(l.TroubleSince, l.At), printable.Line(l.Trouble))
	}
	for _, g := range l.Groups {
		switch {
		case g.Stale == "" && g.Nodes == 0:
			fmt.Fprintf(w, "nodes.%s: the list of nodes was not read yet\n", printable.Line(g.Name))
		case g.Stale != "":
			fmt.Fprintf(w, "nodes.%s: the list of %d nodes is stale since %s: %s\n", printable.Line(g.Name), g.Nodes, timeText(g.Since, l.At), printable.Line(g.Stale))
		}
	}
}
