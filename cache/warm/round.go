package warm

import (
	"fmt"
	"slices"
	"time"
)

// A phase is what a round waits for.
type phase int

const (
	resting phase = iota // for the next round
	listing              // for the lists of nodes
	asking               // for answers
	wishing              // for answers to what carries wishes that the first questions did not have
)

type round struct {
	phase   phase
	next    time.Duration // when the next one begins
	serial  int           // of this phase of this round
	waiting int           // groups or nodes
	until   time.Duration // the round goes on without them
	// doubtful are nodes that were away before. The round goes on without them from early on.
	doubtful int
	early    time.Duration
}

// soon lets a round begin before its time.
func (r *round) soon(now time.Duration) { r.next = min(r.next, now+soonest) }

// await begins a phase.
func (r *round) await(p phase, now, within time.Duration) {
	r.phase, r.waiting, r.doubtful, r.early, r.until = p, 0, 0, now+awayWithin, now+within
	r.serial++
}

// waits reports whether the phase is not over.
func (r *round) waits(now time.Duration) bool {
	if r.phase == resting {
		return now < r.next
	}
	return r.waiting > 0 && now < r.until || r.doubtful > 0 && now < r.early
}

// advance goes on with the round as far as it can.
func (m *Machine) advance() {
	r := &m.round
	for {
		now := m.now.Since
		if r.waits(now) {
			return
		}
		switch r.phase {
		case resting:
			r.next = now + m.list.CatchUp
			r.await(listing, now, listWithin)
			m.readNodes()
		case listing:
			r.await(asking, now, askWithin)
			m.ask(func(n *node) bool { return n.due <= now })
		case asking:
			m.giveUp()
			r.await(wishing, now, askWithin)
			m.ask(m.unwished)
		case wishing:
			m.giveUp()
			r.await(resting, now, 0)
			m.settle()
			m.plan()
		}
	}
}

// readNodes reads the lists again that can have changed.
func (m *Machine) readNodes() {
	for i := range m.list.Groups {
		g := m.groups[m.list.Groups[i].Name]
		if g.Names == nil && !g.reading {
			g.reading, g.awaited = true, m.round.serial
			m.round.waiting++
			m.do(ActNodes{g.Group})
		}
	}
}

// listed takes the list of a group. When there is none, the last one stands.
func (m *Machine) listed(ev EvNodes) {
	g := m.groups[ev.Group]
	if g == nil || !g.reading {
		return
	}
	g.reading = false
	if g.awaited == m.round.serial {
		m.round.waiting--
	}
	switch {
	case ev.Why != "":
		g.stale.set(ev.Why, m.now.Wall)
	case len(ev.Names) == 0:
		g.stale.set("no nodes in it", m.now.Wall)
	default:
		g.stale = notice{}
		if !slices.Equal(g.names, ev.Names) {
			g.names = ev.Names
			m.rebuild()
		}
	}
}

// ask asks the nodes that are chosen, unless they have not answered the last question yet.
func (m *Machine) ask(chosen func(*node) bool) {
	var queries []*Query
	for _, n := range m.order {
		if n.query != nil || !chosen(n) {
			continue
		}
		n.query = &Query{Node: n.name, Images: make([]Question, len(n.pairs))}
		for i, p := range n.pairs {
			n.query.Images[i] = Question{p.v.Name, p.v.Digest}
		}
		if m.canWish(n) {
			n.query.Wishes = m.wishes(n)
		}
		n.awaited, n.asked, n.doubtful = m.round.serial, m.now.Since, n.away.why != ""
		if n.doubtful {
			m.round.doubtful++
		} else {
			m.round.waiting++
		}
		queries = append(queries, n.query)
	}
	if len(queries) > 0 {
		m.do(ActAsk{queries})
	}
}

// giveUp takes nodes that the phase has waited for in vain as away. Their answers still count when they come.
func (m *Machine) giveUp() {
	for _, n := range m.order {
		if n.query != nil && n.awaited == m.round.serial && !n.doubtful {
			m.lost(n, fmt.Sprintf("no answer within %v", askWithin), false)
		}
	}
}

// answered takes what a node says, or that it does not answer.
func (m *Machine) answered(ev EvAnswer) {
	n := m.nodes[ev.Query.Node]
	if n == nil || n.query != ev.Query {
		return // It is not listed any more, or listed again since.
	}
	n.query = nil
	switch {
	case n.awaited != m.round.serial:
	case n.doubtful:
		m.round.doubtful--
	default:
		m.round.waiting--
	}
	if got, want := len(ev.Answer.Images), len(ev.Query.Images); ev.Why == "" && got != want {
		ev.Why, ev.Failed = fmt.Sprintf("answers %d of %d questions", got, want), true
	}
	if ev.Why != "" {
		m.lost(n, ev.Why, ev.Failed)
		return
	}
	if !n.answers && (m.round.phase == resting || n.awaited != m.round.serial) {
		m.round.soon(m.now.Since) // It is there, and came too late for this round.
	}
	m.heard(n)
	n.room, n.wanted, n.most = ev.Answer.Room, ev.Answer.Wanted, ev.Answer.Most
	if ev.Query.Wishes != nil {
		n.wished, n.told = ev.Query.Wishes, true
	}
	for i, q := range ev.Query.Images {
		p := n.pair(q.Name)
		// What was asked before a push has ended says nothing about what it left.
		if p == nil || p.v.Digest != q.Digest || p.push != nil || p.ended >= n.asked && p.ended > 0 {
			continue
		}
		h, was := ev.Answer.Images[i], p.conflict
		p.asked, p.lacks, p.named, p.conflict = q.Digest, h.Lacks, h.Named, h.Conflict
		if ev.Query.Wishes != nil {
			p.wished = q.Digest
		}
		if p.fails > 0 && p.outcome == Full {
			p.room = min(p.room, n.room)
		}
		m.unheld(p)
		switch {
		case p.holds():
			p.forgive()
		case p.fails == 0 || p.outcome != Conflict || p.conflict != "":
		case was != "": // the other owner has let the name go
			p.forgive()
		default: // a push was refused for what the answer does not say
			p.outcome = Failed
		}
	}
}

// unheld notes whether a node has what it committed. That it was emptied since is no failure, but again and again it is one.
func (m *Machine) unheld(p *pair) {
	switch {
	case p.holds():
		p.unheld = 0
	case p.committed == p.v.Digest:
		if p.unheld++; p.unheld > 1 {
			p.fails = p.unheld - 2
			p.fail(Row{Outcome: Failed, Why: "it has committed the image and lacks it again, see its log"}, m.now.Since, m.list.Retry)
		}
	}
	p.committed = ""
}

// lost notes that a node does not answer or, if it refuses, that it does not tell what it holds.
func (m *Machine) lost(n *node, why string, refuses bool) {
	if n.away.why == "" && n.answers && !refuses {
		n.losses++
	}
	if n.refuses != refuses {
		n.away = notice{} // It is another failure.
	}
	n.away.set(why, m.now.Wall)
	n.refuses = refuses
	n.met, n.answers, n.wished = false, false, nil
	if n.flaps() {
		n.due = m.now.Since + m.list.Retry.After(n.losses-flapsAfter+1)
	}
	for _, p := range n.pairs {
		p.asked, p.wished = "", ""
		p.committed, p.unheld = "", 0 // It may be emptied meanwhile.
	}
}

// heard notes that a node answers.
func (m *Machine) heard(n *node) {
	if !n.answers {
		n.since = m.now.Since
		if !n.flaps() {
			for _, p := range n.pairs {
				p.forgive()
			}
		}
	}
	n.away, n.met, n.answers = notice{}, true, true
	if m.now.Since-n.since >= steadyAfter {
		n.losses = 0
	}
}

// settle looks at what a round has shown: who is warm, and which older digests may go.
func (m *Machine) settle() {
	for _, v := range m.variants {
		warm, open := v.count()
		if v.enough(warm) {
			v.warm, m.touched = m.now.Wall, true
		}
		if keep := v.entry.Keep - 1; open == 0 && warm > 0 && len(v.older) > keep {
			v.older, m.dirty = v.older[:keep], true
		}
	}
}
