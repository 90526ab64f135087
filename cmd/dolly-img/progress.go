package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/bytesize"
)

// progress tells a person what the ring does while it does it: on a terminal one
// line that stays in its place, elsewhere a line about every 5 seconds or 10 per
// cent, and on both what happens to nodes and links that does not go as it should. What happens
// to many at once, such as those behind one switch, is one line.
type progress struct {
	screen *screen
	image  string
	nodes  int // that were asked for
	quiet  bool
	detail bool // every event, as it comes

	mu    sync.Mutex // guards all below
	begun bool       // bytes move
	news  []ring.Event
	flush *time.Timer           // prints news; nil: none is due
	told  map[string]ring.Cause // of nodes that were told to be out
	last  time.Time             // of the last plain line
	tenth int64                 // of the whole, that the last plain line was about
}

const (
	plainEvery = 5 * time.Second
	// newsAfter is how long a line may wait for others that say the same: what one fault does to
	// many nodes is seen within a second.
	newsAfter = time.Second
	mostNews  = 16 // lines at once
)

func (p *progress) event(e ring.Event) {
	if p.quiet {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e.Kind {
	case ring.EventNode:
		p.node(e)
	case ring.EventPlan:
		if len(e.Nodes) > 0 {
			p.begin()
		}
		if p.detail {
			p.screen.printf("chain: %s", strings.Join(e.Nodes, " -> "))
		}
	case ring.EventLink:
		switch {
		case p.detail:
			p.screen.printf("link %s: %s", e.Link, e.Reason)
		case !e.Up || e.Again:
			p.hear(e)
		}
	case ring.EventProgress:
		p.begin()
		p.move(e)
	case ring.EventCommit:
		if p.detail {
			p.screen.printf("all sent, nodes commit")
		}
	}
}

// begin tells of the nodes that were left out from the start. Where nobody is served
// the table will say all of it at once.
func (p *progress) begin() {
	if !p.begun {
		p.begun = true
		p.tell()
	}
}

func (p *progress) node(e ring.Event) {
	waits := e.State == ring.Pending && e.Reason != ""
	fine := !waits && (e.State.Good() || e.State == ring.Pending || e.State == ring.Serving && e.Reason == "")
	switch {
	case p.detail:
		p.screen.printf("%s: %s", e.Node, joinReason(e))
	case fine:
	case waits, e.State == ring.Serving:
		delete(p.told, e.Node)
		p.hear(e)
	default:
		// That a lost node has failed is no news once the others are done.
		if before, ok := p.told[e.Node]; ok && before == e.Cause {
			return
		}
		if p.told == nil {
			p.told = map[string]ring.Cause{}
		}
		p.told[e.Node] = e.Cause
		p.hear(e)
	}
}

// hear keeps news until others that are the same have come.
func (p *progress) hear(e ring.Event) {
	p.news = append(p.news, e)
	if p.flush == nil && (p.begun || e.State == ring.Pending) {
		p.flush = time.AfterFunc(newsAfter, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.tell()
		})
	}
}

// tell prints the news, of nodes and links by what is the same of them. Those left out from the start
// wait for the start.
func (p *progress) tell() {
	if p.flush != nil {
		p.flush.Stop()
		p.flush = nil
	}
	var rows []ring.Row
	var links []*linkNews
	var later []ring.Event
	for _, e := range p.news {
		switch {
		case e.Kind == ring.EventLink:
			links = addLink(links, e)
		case !p.begun && e.State != ring.Pending:
			later = append(later, e)
		default:
			rows = append(rows, ring.Row{Node: e.Node, State: e.State, Reason: e.Reason, Cause: e.Cause})
		}
	}
	p.news = later
	var lines []string
	for _, g := range grouped(rows) {
		lines = append(lines, fmt.Sprintf("%s: %s", fold(g.nodes), joinReason(ring.Event{State: g.state, Reason: g.reason()})))
	}
	for _, l := range links {
		lines = append(lines, l.lines()...)
	}
	for i, line := range lines {
		if i == mostNews {
			p.screen.printf("and %d more such lines; -v prints all of them, the report and the table what became of each node", len(lines)-i)
			return
		}
		p.screen.printf("%s", line)
	}
}

// linkNews is what happened to some links.
type linkNews struct {
	reason string
	links  []string
}

func addLink(all []*linkNews, e ring.Event) []*linkNews {
	k := slices.IndexFunc(all, func(l *linkNews) bool { return l.reason == e.Reason })
	if k < 0 {
		return append(all, &linkNews{e.Reason, []string{e.Link}})
	}
	all[k].links = append(all[k].links, e.Link)
	return all
}

// lines are a line for each link, while they are few.
func (l *linkNews) lines() (lines []string) {
	const few = 3
	if n := len(l.links); n > few {
		return []string{fmt.Sprintf("%d links, %s and others: %s", n, l.links[0], l.reason)}
	}
	for _, link := range l.links {
		lines = append(lines, fmt.Sprintf("link %s: %s", link, l.reason))
	}
	return lines
}

func joinReason(e ring.Event) string {
	switch {
	case e.Reason == "":
		return string(e.State)
	case e.State == ring.Pending:
		return e.Reason
	case e.State == ring.Lost: // most reasons say that it is lost
		return e.Reason + "; it is dialled again"
	}
	return string(e.State) + ": " + e.Reason
}

func (p *progress) move(e ring.Event) {
	parts := progressParts(e, p.image, p.nodes)
	if p.screen.terminal() {
		p.screen.progress(fit(parts, p.screen.columns()))
		return
	}
	tenth := int64(-1)
	if e.Total > 0 {
		tenth = e.Bytes * 10 / e.Total
	}
	if tenth != p.tenth || e.Time.Sub(p.last) >= plainEvery {
		p.last, p.tenth = e.Time, tenth
		p.screen.printf("%s", strings.Join(parts, gap))
	}
}

// end takes the live line away. The table that follows says of nodes that failed why they did.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.news = slices.DeleteFunc(p.news, func(e ring.Event) bool {
		return e.State == ring.Failed || e.State == ring.Refused || e.State == ring.Unreachable
	})
	p.tell()
	p.screen.progress("")
}

// gap is between the parts of a line of progress.
const gap = "  "

// progressParts are: what, how far, how fast, how long still, how many nodes have
// everything, and what keeps them from being faster: the node or link that is slower than
// the others, or else what all of them wait for. What is not known is left out.
func progressParts(e ring.Event, image string, nodes int) []string {
	parts := []string{image}
	if e.Total > 0 {
		parts = append(parts, fmt.Sprintf("%d%%", e.Bytes*100/e.Total))
	} else if e.Bytes > 0 {
		parts = append(parts, bytesize.Text(e.Bytes))
	}
	moves := e.Rate >= 1
	if moves {
		parts = append(parts, bytesize.Text(int64(e.Rate))+"/s")
	}
	if left := e.Total - e.Bytes; left > 0 && moves {
		parts = append(parts, clock(time.Duration(float64(left)/e.Rate*float64(time.Second)))+" left")
	}
	parts = append(parts, fmt.Sprintf("%d/%d nodes done", e.Done, nodes))
	switch limit, known := limits[e.Limit]; {
	case e.Bottleneck != "":
		parts = append(parts, "slowest "+e.Bottleneck)
	case known && moves:
		parts = append(parts, "limited by "+limit)
	case known:
		parts = append(parts, "waiting for "+limit)
	}
	return parts
}

// limits are the words for what all nodes wait for.
var limits = map[ring.Limit]string{
	ring.LimitProcessor: "processor",
	ring.LimitDisk:      "disks",
	ring.LimitNetwork:   "the network",
	ring.LimitPolicy:    "the rate in the nodes' policy.toml",
	ring.LimitRate:      "--rate",
	ring.LimitSource:    "the source",
}

// fit joins parts in n columns. The name, which whoever reads knows, gives way to the
// figures: it is shortened, then left out; then the last parts are.
func fit(parts []string, n int) string {
	const least = 9 // columns of a name that still tells something
	line := strings.Join(parts, gap)
	over := columns(line) - n
	if over <= 0 {
		return line
	}
	if name := columns(parts[0]) - over; name >= least {
		return strings.Join(append([]string{middle(parts[0], name)}, parts[1:]...), gap)
	}
	for parts = parts[1:]; len(parts) > 1 && columns(strings.Join(parts, gap)) > n; {
		parts = parts[:len(parts)-1]
	}
	return strings.Join(parts, gap)
}

// middle shortens s to n columns, of which it keeps both ends.
func middle(s string, n int) string {
	const dots = "..."
	head := cut(s, (n-len(dots))/2)
	tail := []rune(s)
	for columns(head)+len(dots)+columns(string(tail)) > n {
		tail = tail[1:]
	}
	return head + dots + string(tail)
}

// clock is d as minutes and seconds, or with hours.
func clock(d time.Duration) string {
	const limit = 100 * time.Hour
	if d >= limit || d < 0 {
		return "days"
	}
	s := int64(d.Round(time.Second) / time.Second)
	if s >= 3600 {
		return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
	}
	return fmt.Sprintf("%d:%02d", s/60, s%60)
}

// eventWriter writes events, and at the end the report, one JSON object a line.
type eventWriter struct {
	enc *json.Encoder
	err error // the first; nothing is written after it
}

func newEventWriter(w io.Writer) *eventWriter {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return &eventWriter{enc: enc}
}

func (w *eventWriter) write(v any) {
	if w.err == nil {
		w.err = w.enc.Encode(v)
	}
}
