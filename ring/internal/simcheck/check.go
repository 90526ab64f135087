package simcheck

import (
	"fmt"
	"slices"
	"time"
)

// The names of the rules, in what Check returns.
const (
	RuleForm      = "form"      // lines in order of time, known nodes and blobs
	RuleRows      = "rows"      // exactly one final row for each requested node, no other
	RuleGood      = "good"      // committed or held: that node published the source's bytes, and says so
	RuleOnce      = "once"      // a node publishes once
	RuleEarly     = "early"     // nothing is published before the source was read to its end
	RuleWhole     = "whole"     // what is published was all held or made durable before
	RuleExit      = "exit"      // 0 exactly when every requested node published and has a good row
	RuleEnds      = "ends"      // the run ends within its time
	RuleUntouched = "untouched" // a node that nothing happened to gets everything while the server lives
	RuleBounds    = "bounds"    // not more is written than the blob has, nor received twice without cause
	RuleOrder     = "order"     // written in order, within Begin and Commit, Abort or Close
	RuleBytes     = "bytes"     // what is written is what the source has there; nobody changed it
	RuleSum       = "sum"       // what is made durable has the source's digest
	RuleClosed    = "closed"    // each sink that was asked is closed once
	RuleTwins     = "twins"     // of two names of one machine none is served, or one that was told to commit before
)

// Violation is a broken rule.
type Violation struct{ Rule, What string }

func (v Violation) Error() string { return v.Rule + ": " + v.What }

type judge struct {
	head  Event
	nodes map[string]*node
	bad   []error

	sourceDone, sourceBad bool
	serverLived           bool
	weak                  bool            // a fault happened that the ring does not yet survive
	liars                 map[string]bool // nodes that pass on other bytes
	twins                 [][2]string     // names of one machine
	cut                   bool            // between nodes
	faults                int
	bound                 time.Duration // until then all have everything, and without liars the run ends
	ending                time.Duration // so much later it ends at the latest, because liars may delay their own end
	end                   *Event
}

type node struct {
	procs     map[int]*proc
	published int
	right     bool // the last publish had the source's digests
	rows      []Event
	harm      []Event       // faults that may cost it its success
	liar      bool          // its row is of what it says
	offered   time.Duration // -1: not yet
	stored    time.Duration // it made a blob durable last
	mild      int           // faults that may not, unless they come together
}

type proc struct {
	blobs  []blob
	opened int
	closed int
	killed bool
}

type blob struct {
	held, open, durable bool
	at, total           int64
}

func (j *judge) broken(rule, format string, args ...any) {
	j.bad = append(j.bad, Violation{rule, fmt.Sprintf(format, args...)})
}

// Check judges a history. It returns what it found wrong, nil when nothing is.
func Check(events []Event) []error {
	if len(events) == 0 || events[0].Kind != Run {
		return []error{Violation{RuleForm, "does not begin with a run"}}
	}
	j := &judge{head: events[0], nodes: map[string]*node{}, liars: map[string]bool{}, serverLived: true}
	for _, n := range j.head.Nodes {
		j.nodes[n] = &node{procs: map[int]*proc{}, offered: -1}
	}
	var total int64
	for _, b := range j.head.Blobs {
		total += b.Size
	}
	// The start takes up to 5 s, or as long as nodes are waited for, to see a loss
	// takes 5 s and to ask for a state, 15 s once commits are under way. Everything
	// may have to travel again from the start, at the slowest rate.
	j.bound = 6*time.Second + j.head.For
	late := time.Duration(0)
	slowest := j.head.Rate
	var last time.Duration
	for i, ev := range events {
		if ev.T < last {
			j.broken(RuleForm, "line %d: time goes back", i+1)
		}
		last = ev.T
		if ev.Kind == Fault {
			j.bound += 8*time.Second + ev.For
			late = 16 * time.Second
			if ev.Rate > 0 {
				slowest = min(slowest, ev.Rate)
			}
			if ev.What == Liar {
				j.bound += lies(ev, total, len(j.head.Blobs))
				j.ending += 10 * time.Minute
			}
		}
		if (i == 0) != (ev.Kind == Run) || (i == len(events)-1) != (ev.Kind == Over) {
			j.broken(RuleForm, "line %d: %s", i+1, ev.Kind)
			continue
		}
		j.event(i+1, ev)
	}
	if slowest > 0 {
		j.bound += time.Duration(float64(4*total) / float64(slowest) * float64(time.Second))
	}
	j.bound += late
	j.ended()
	return j.bad
}

// lies is how long a liar may delay what the others get, by PROTOCOL.md section 9: T × 2, and as long as what it is
// believed to get on by takes at R.
func lies(ev Event, total int64, blobs int) time.Duration {
	bytes := 3 * total // received, compared, stored
	if ev.Peer != "" { // a mate confirms whatever it says to have received: again each time that it goes back to a mark
		bytes += 5 * total
	}
	bytes += int64(blobs) * 240 << 10
	return 2*time.Minute + time.Duration(float64(bytes)/(16<<10)*float64(time.Second))
}

func (j *judge) event(line int, ev Event) {
	switch ev.Kind {
	case Run, Over:
		return
	case SourceDone:
		j.sourceDone = true
		return
	case SourceBad:
		j.sourceBad, j.serverLived = true, false
		return
	case Fault:
		j.fault(line, ev)
		return
	case End:
		if j.end != nil {
			j.broken(RuleForm, "line %d: ended twice", line)
		}
		j.end = &ev
		return
	}
	n := j.nodes[ev.Node]
	if n == nil {
		rule := RuleForm
		if ev.Kind == Row {
			rule = RuleRows
		}
		j.broken(rule, "line %d: %s of %q, which was not asked for", line, ev.Kind, ev.Node)
		return
	}
	if ev.Kind == Row {
		n.rows = append(n.rows, ev)
		return
	}
	p := n.procs[ev.Proc]
	if p == nil {
		p = &proc{blobs: make([]blob, len(j.head.Blobs))}
		n.procs[ev.Proc] = p
	}
	if p.killed {
		j.broken(RuleForm, "line %d: %s: %s by a dead process", line, ev.Node, ev.Kind)
	}
	if ev.Blob < 0 || ev.Blob >= len(p.blobs) {
		j.broken(RuleForm, "line %d: blob %d", line, ev.Blob)
		return
	}
	j.sink(line, ev, n, p)
}

// sink judges what a node did to its storage.
func (j *judge) sink(line int, ev Event, n *node, p *proc) {
	b, want := &p.blobs[ev.Blob], j.head.Blobs[ev.Blob]
	at := func(rule, format string, args ...any) {
		j.broken(rule, "line %d: %s: %s", line, ev.Node, fmt.Sprintf(format, args...))
	}
	if p.closed > 0 && ev.Kind != Close {
		at(RuleOrder, "%s after the close", ev.Kind)
	}
	switch ev.Kind {
	case Offer:
		p.opened++
		n.offered = ev.T
		for i := range ev.Held {
			p.blobs[i].held = ev.Held[i]
		}
	case Begin:
		if b.open || b.durable || b.held {
			at(RuleOrder, "blob %d is begun again", ev.Blob)
		}
		if ev.Off < 0 || ev.Off > want.Size {
			at(RuleBounds, "blob %d of %d bytes is begun at %d", ev.Blob, want.Size, ev.Off)
		}
		b.open, b.at = true, ev.Off
	case Write, Skip:
		j.write(at, ev, b)
	case Commit:
		if !b.open {
			at(RuleOrder, "commit of blob %d, which is not open", ev.Blob)
		}
		if ev.Sum != want.Sum || ev.N != want.Size || b.at != want.Size {
			at(RuleSum, "blob %d is made durable with %d bytes, %s; the source has %d, %s", ev.Blob, ev.N, ev.Sum, want.Size, want.Sum)
		}
		b.open, b.durable = false, true
		n.stored = ev.T
	case Abort:
		if !b.open {
			at(RuleOrder, "abort of blob %d, which is not open", ev.Blob)
		}
		b.open = false
	case Publish:
		j.publish(at, ev, n, p)
	case Close:
		p.closed++
		for i := range p.blobs {
			if p.blobs[i].open {
				at(RuleOrder, "closed while blob %d is open", i)
			}
		}
	default:
		at(RuleForm, "unknown kind %q", ev.Kind)
	}
}

// write judges what was written, or left out because it was there.
func (j *judge) write(at func(rule, format string, args ...any), ev Event, b *blob) {
	size := j.head.Blobs[ev.Blob].Size
	switch {
	case !b.open:
		at(RuleOrder, "%s to blob %d, which is not open", ev.Kind, ev.Blob)
	case ev.Off != b.at:
		at(RuleOrder, "%s to blob %d at %d, it stands at %d", ev.Kind, ev.Blob, ev.Off, b.at)
	}
	if b.at = ev.Off + ev.N; ev.Kind == Skip {
		return
	}
	b.total += ev.N
	if b.at > size && len(j.liars) == 0 {
		at(RuleBounds, "%d bytes of blob %d, the source has %d", b.at, ev.Blob, size)
	}
	// It may begin again for each fault, and go back to a mark five times.
	if b.total > size*int64(6+j.faults) {
		at(RuleBounds, "%d bytes of blob %d were written in all", b.total, ev.Blob)
	}
	if ev.Bad && len(j.liars) == 0 {
		at(RuleBytes, "other bytes than the source's in blob %d at %d", ev.Blob, ev.Off)
	}
}

func (j *judge) publish(at func(rule, format string, args ...any), ev Event, n *node, p *proc) {
	if n.published++; n.published > 1 {
		at(RuleOnce, "publishes again")
	}
	if !j.sourceDone || j.sourceBad {
		at(RuleEarly, "publishes although the source was not read to its end")
	}
	for i := range p.blobs {
		if !p.blobs[i].held && !p.blobs[i].durable {
			at(RuleWhole, "publishes without blob %d", i)
		}
	}
	n.right = slices.EqualFunc(ev.Sums, j.head.Blobs, func(s string, b Blob) bool { return s == b.Sum })
}

// fault notes whom a fault may cost its success.
func (j *judge) fault(line int, ev Event) {
	j.faults++
	j.weak = j.weak || slices.Contains(j.head.Weak, ev.What)
	n := j.nodes[ev.Node]
	switch ev.What {
	case Interrupt, KillServer:
		j.serverLived = false
		return
	case Kill, Return, Freeze, CutServer, Full, Refuse, Lie, Rogue, Liar:
		if n == nil {
			j.broken(RuleForm, "line %d: %s of %q", line, ev.What, ev.Node)
			return
		}
		if ev.What == Lie || ev.What == Liar {
			j.liars[ev.Node] = true
		}
		n.liar = n.liar || ev.What == Liar
		n.harm = append(n.harm, ev)
		if p := n.procs[ev.Proc]; ev.What == Kill && p != nil {
			p.killed = true
		}
	case Twin:
		other := j.nodes[ev.Peer]
		if n == nil || other == nil {
			j.broken(RuleForm, "line %d: %s of %q and %q", line, ev.What, ev.Node, ev.Peer)
			return
		}
		j.twins = append(j.twins, [2]string{ev.Peer, ev.Node})
		n.harm, other.harm = append(n.harm, ev), append(other.harm, ev)
	case Rot:
		// What it has itself was right when it was stored.
		j.liars[ev.Node] = true
	case Late:
		if n != nil && ev.For+2*time.Second > j.head.For {
			n.harm = append(n.harm, ev)
		}
	case ResetControl, Pause:
		// Each alone is survived; who is asked for its state while it cannot
		// answer is lost. So is who has not yet answered the offer.
		if n == nil {
			break
		}
		if n.mild++; n.mild > 1 || ev.What == ResetControl && (n.offered < 0 || ev.T < n.offered+20*time.Millisecond) {
			n.harm = append(n.harm, ev)
		}
	case CutLink, Island:
		j.cut = true // the server can feed both ends itself, if it may
	case Stall, SlowLink, SlowDisk, Hang, Corrupt, ResetLink, Stutter:
		// The server can feed everybody itself.
	default:
		j.broken(RuleForm, "line %d: unknown fault %q", line, ev.What)
	}
}
