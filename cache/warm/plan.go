package warm

import (
	"cmp"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// A push is a ring that runs.
type push struct {
	Push
	variant  *variant
	pairs    []*pair
	stopping bool
	rate     int64
	left     time.Duration
	done     int // nodes that have the image
}

// rateOf returns the bound for a ring now, in bytes per second, or 0.
func (m *Machine) rateOf(v *variant) int64 {
	rate := v.entry.Rate
	if m.limit > 0 && (rate == 0 || m.limit < rate) {
		rate = m.limit
	}
	return rate
}

// plan begins rings for those who lack something, as far as the list lets it. In a ring all have the image at about the same time. So one of
// which a first node has it goes on for slow nodes only: it takes no place from others, and newcomers get a ring of their own. Until then
// nobody else is sent the same digest, which is on its way from the registry.
func (m *Machine) plan() {
	if m.off {
		return
	}
	places, busy := m.list.Rings, map[digest.Digest]bool{}
	for _, p := range m.pushes {
		if p.done == 0 {
			places--
			busy[p.Digest] = true
		}
	}
	places = min(places, m.list.Rings+mostSlow-len(m.pushes))
	ranked := slices.Clone(m.variants)
	slices.SortStableFunc(ranked, func(a, b *variant) int {
		return cmp.Or(cmp.Compare(b.entry.Priority, a.entry.Priority), cmp.Compare(a.lastID, b.lastID))
	})
	for _, v := range ranked {
		if places <= 0 {
			return
		}
		if v.next > m.now.Since || busy[v.Digest] {
			continue
		}
		p := &push{variant: v}
		for _, pair := range v.pairs {
			if pair.lacking(m.now.Since) {
				p.pairs = append(p.pairs, pair)
				p.Nodes = append(p.Nodes, pair.node.name)
				if pair.named != "" && pair.named != v.Digest && !slices.Contains(v.older, pair.named) {
					p.Back = append(p.Back, pair.node.name)
				}
			}
		}
		if len(p.pairs) > 0 {
			m.begin(p)
			places--
			busy[v.Digest] = true
		}
	}
}

func (m *Machine) begin(p *push) {
	v := p.variant
	m.lastID++
	v.lastID = m.lastID
	p.ID, p.Ref, p.Platform, p.Name, p.Digest = m.lastID, v.ref, v.Platform, v.Name, v.Digest
	p.AuthFile, p.Rate = v.entry.AuthFile, m.rateOf(v)
	for _, pair := range p.pairs {
		pair.push = p
	}
	m.pushes[p.ID] = p
	m.do(ActPush{p.Push})
}

func (m *Machine) stop(p *push) {
	if !p.stopping {
		p.stopping = true
		m.do(ActStop{p.ID})
	}
}

// pushed takes what became of a ring.
func (m *Machine) pushed(ev EvPushed) {
	p := m.pushes[ev.Push]
	if p == nil {
		return
	}
	delete(m.pushes, ev.Push)
	rows := make(map[string]Row, len(ev.Rows))
	for _, r := range ev.Rows {
		rows[r.Node] = r
	}
	for _, pair := range p.pairs {
		row, ok := rows[pair.node.name]
		if !ok {
			row = Row{Node: pair.node.name, Why: "the ring says nothing of it"}
		}
		pair.push, pair.ended = nil, m.now.Since
		m.take(pair, p, row)
	}
	switch v := p.variant; {
	case ev.Why != "" && v.Digest == p.Digest:
		v.fails++
		v.why, v.next = ev.Why, m.now.Since+m.list.Retry.After(v.fails)
	case ev.Why == "":
		v.fails, v.why, v.next = 0, "", 0
	}
	m.plan()
}

// take notes the outcome for one node.
func (m *Machine) take(pair *pair, p *push, row Row) {
	switch row.Outcome {
	case Committed:
		pair.asked, pair.lacks, pair.named, pair.committed = p.Digest, 0, p.Digest, p.Digest
		pair.forgive()
	case Interrupted:
	default:
		if p.Digest != pair.v.Digest && (row.Outcome == Full || row.Outcome == Failed) {
			return // The digest moved meanwhile. What the old one needed, or failed for, does not hold up the new one.
		}
		pair.fail(row, m.now.Since, m.list.Retry)
		if row.Outcome == Unreachable && m.nodes[row.Node] == pair.node {
			m.lost(pair.node, row.Why, false)
		}
	}
}
