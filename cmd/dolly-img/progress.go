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

// progress shows a person what the ring does while it does it. On a terminal it draws one line that stays in
// its place; elsewhere it prints a line about every 5 seconds or 10 per cent. On both it prints news: nodes
// and links that fail, are lost or come back. If the same happens to many at once, such as all nodes behind
// one switch, it prints one line for all of them.
type progress struct {
	screen *screen
	image  string
	// nodes is how many nodes the user asked for.
	nodes int
	quiet bool
	// detail prints every event as it comes.
	detail bool

	// mu guards all fields below.
	mu sync.Mutex
	// begun says that bytes move.
	begun bool
	// news is what happened and was not printed yet. flush prints it, and is nil while it is empty.
	news  []ring.Event
	flush *time.Timer
	// told has, for each node that was said to be out, the cause that was said, printed that which was printed, and planned
	// that which a plan had.
	told, printed, planned map[string]ring.Cause
	// last is the time of the last plain line, and tenth is how many tenths of the whole it said were done.
	last  time.Time
	tenth int64
}

const (
	plainEvery = 5 * time.Second
	// newsAfter is how long news waits for more of the same: what one fault does to many nodes is seen
	// within a second.
	newsAfter = time.Second
	// mostNews is how many lines of news are printed at once.
	mostNews = 16
)

// event takes what the ring says.

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

// begin prints which nodes were left out at the start. It is called once a node is served: if none is, the table
// says all of it at once.
func (p *progress) begin() {
	if !p.begun {
		p.begun = true
		p.tell()
	}
}

// node takes an event about a node.
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
		// A lost node fails once the others are done, for the same cause, which was printed already.
		if before, ok := p.told[e.Node]; ok && before == e.Cause {
			return
		}
		note(&p.told, e.Node, e.Cause)
		p.hear(e)
	}
}

func note(in *map[string]ring.Cause, node string, cause ring.Cause) {
	if *in == nil {
		*in = map[string]ring.Cause{}
	}
	(*in)[node] = cause
}

// plan notes that a plan was printed, which had these rows with their reasons and hints.
func (p *progress) plan(rows []ring.Row) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, row := range rows {
		note(&p.told, row.Node, row.Cause)
		note(&p.planned, row.Node, row.Cause)
	}
	p.news = slices.DeleteFunc(p.news, func(e ring.Event) bool {
		cause, ok := p.planned[e.Node]
		return ok && cause == e.Cause
	})
}

// shorten has the groups say less of which all was printed before.
func (p *progress) shorten(groups []*alike) []*alike {
	if p == nil {
		return groups
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, g := range groups {
		all := func(in map[string]ring.Cause) bool {
			return !slices.ContainsFunc(g.nodes, func(node string) bool {
				cause, ok := in[node]
				cause.Addr = ""
				return !ok || cause != g.cause
			})
		}
		g.planned = all(p.planned)
		g.told = g.planned || all(p.printed)
	}
	return groups
}

// hear keeps news for a while, until more of the same has come.
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

// tell prints the news, one line for all nodes and links of which the same is to be said. News of nodes that were
// left out at the start waits until bytes move.
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
	for _, row := range rows[:min(len(rows), mostNews)] { // of as many rows the lines are printed
		note(&p.printed, row.Node, row.Cause)
	}
	for i, line := range lines {
		if i == mostNews {
			p.screen.printf("and %d more lines like these; -v prints all of them, and the table and the report say what became of each node", len(lines)-i)
			return
		}
		p.screen.printf("%s", line)
	}
}

// linkNews is something that happened to some links.
type linkNews struct {
	reason string
	links  []string
}

// addLink adds an event of a link to the news with the same reason.
func addLink(all []*linkNews, e ring.Event) []*linkNews {
	k := slices.IndexFunc(all, func(l *linkNews) bool { return l.reason == e.Reason })
	if k < 0 {
		return append(all, &linkNews{e.Reason, []string{e.Link}})
	}
	all[k].links = append(all[k].links, e.Link)
	return all
}

// lines returns a line for each link if there are few of them, else one line for all.
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

// joinReason is what is printed about a node: its state and the reason for it.
func joinReason(e ring.Event) string {
	switch {
	case e.Reason == "":
		return string(e.State)
	case e.State == ring.Pending:
		return e.Reason
	case e.State == ring.Lost: // most of these reasons say that the node is lost
		return e.Reason + "; it is dialled again"
	}
	return string(e.State) + ": " + e.Reason
}

// move shows how far the transfer is.
func (p *progress) move(e ring.Event) {
	parts := progressParts(e, p.image, p.nodes)
	if p.screen.hasLive() {
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

// end prints the rest of the news and removes the live line. It leaves out nodes that failed: the table that
// follows says why they did.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.news = slices.DeleteFunc(p.news, func(e ring.Event) bool {
		return e.State == ring.Failed || e.State == ring.Refused || e.State == ring.Unreachable
	})
	p.tell()
	p.screen.progress("")
}

// gap separates the parts of a line of progress.
const gap = "  "

// progressParts returns the parts of the line of progress: the name of the image, whether nodes compare what they have or read back what they stored, how far it is, how fast it moves,
// how long it still takes, how many nodes have everything, and what limits the speed. That is the node or
// link that is slower than the others, or else what all nodes wait for. Parts that are not known are left out.
func progressParts(e ring.Event, image string, nodes int) []string {
	parts := []string{image}
	switch {
	case e.Verifying:
		parts = append(parts, "verifying")
	case e.Comparing:
		parts = append(parts, "comparing")
	}
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

// limits names what all nodes may wait for.
var limits = map[ring.Limit]string{
	ring.LimitProcessor: "processor",
	ring.LimitHash:      "hashing without SHA instructions",
	ring.LimitDisk:      "disks",
	ring.LimitNetwork:   "the network",
	ring.LimitPolicy:    "the rate in the nodes' policy.toml",
	ring.LimitRate:      "--rate",
	ring.LimitSource:    "the source",
}

// fit joins the parts to a line of at most n columns. If they are too long it first shortens the name, which the reader
// knows, then leaves it out, and then leaves out the last parts.
func fit(parts []string, n int) string {
	// A name of fewer columns tells nothing any more.
	const least = 9
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

// middle shortens s to n columns by taking out its middle.
func middle(s string, n int) string {
	const dots = "..."
	head := cut(s, (n-len(dots))/2)
	tail := []rune(s)
	for columns(head)+len(dots)+columns(string(tail)) > n {
		tail = tail[1:]
	}
	return head + dots + string(tail)
}

// clock writes d as minutes and seconds, with hours if there are any.
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

// eventWriter writes the events and then the report, one JSON object a line.
type eventWriter struct {
	enc *json.Encoder
	// err is the first error of writing. Nothing is written after it.
	err error
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
