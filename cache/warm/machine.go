package warm

import (
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// Bounds of what the machine does at once, and of how long it waits.
const (
	lookups     = 4                // registries are asked about so many entries at once
	lookupsOf   = 2                // one registry, which may not answer, is asked about so many
	silentFrom  = 5 * time.Second  // a lookup that fails after so long is of a registry that does not answer
	listWithin  = 5 * time.Second  // a round goes on with the last lists of nodes after that
	askWithin   = 15 * time.Second // a node that did not answer is away after that
	awayWithin  = 2 * time.Second  // the same for a node that was away before
	soonest     = 2 * time.Second  // between the beginnings of two rounds, when a digest is new
	flapsAfter  = 3                // losses, from which on a node flaps
	steadyAfter = time.Hour        // of answers, after which losses are forgotten
	saveEvery   = time.Minute      // where only times have changed, and after a failure
	jitter      = 0.1              // of every
	mostPairs   = 512              // images of a node
	mostWishes  = 1024             // that a node takes (PROTOCOL.md)
	doubtFor    = 3 * time.Minute  // for so long nodes wait for what is not known of an entry yet
	mostSlow    = 8                // rings that have nodes left which are slow, beside those of the list's rings
	triesAlone  = 3                // of an entry that an earlier controller may have found, before its nodes get wishes without it, unless the answer is for sure
)

// A Machine decides what is done to keep a list warm. It is not safe for concurrent use.
type Machine struct {
	now  Now
	acts []Action
	rand *rand.Rand

	list     *List
	groups   map[string]*group
	entries  []*entry
	nodes    map[string]*node
	order    []*node    // in the order of groups and names
	variants []*variant // of all tags, in the order of the list
	pushes   map[int]*push
	lastID   int
	round    round
	hosts    map[string]time.Duration // registries that do not want to be asked until then
	silent   map[string]bool          // registries that took long to fail the last lookup, as those do that do not answer
	off      bool                     // no ring may run now
	opens    time.Time                // when the windows do, while they are closed
	limit    int64                    // bytes per second of each ring now; 0 is none

	saved State // what was loaded, for entries that a later list brings back
	// blind says that an earlier controller may have found entries that saved does not have.
	blind bool
	// dirty says that digests have changed since the last ActSave, touched that times have, and unkept that
	// digests have since the last ActKeep.
	dirty, touched, unkept bool
	lastSave               time.Duration

	refused, trouble notice
}

// A notice is something that people should know, since a moment. Why is "" where there is nothing.
type notice struct {
	why   string
	since time.Time
}

func (n *notice) set(why string, at time.Time) {
	if n.why == "" {
		n.since = at
	}
	n.why = why
}

// New makes a machine that goes by a list. state is what an earlier one saved, or nil. The seed is for jitter.
func New(now Now, list *List, state *State, seed uint64) *Machine {
	m := &Machine{now: now, rand: rand.New(rand.NewPCG(seed, 0)), nodes: map[string]*node{}, pushes: map[int]*push{}, hosts: map[string]time.Duration{}, silent: map[string]bool{}}
	m.blind = state == nil || state.Blind
	if state != nil {
		m.saved.Images = slices.Clone(state.Images)
	}
	m.apply(list)
	m.blind = false // What a later list adds, this controller knows.
	m.watch()
	return m
}

// Step takes what has happened and returns what is to be done. Time never goes back in Now.Since.
func (m *Machine) Step(now Now, ev Event) []Action {
	m.now, m.acts = now, nil
	switch ev := ev.(type) {
	case EvTick:
		m.watch()
		m.lookUp()
		m.flush()
	case EvList:
		m.refused = notice{}
		m.apply(ev.List)
		m.watch()
	case EvRefused:
		m.refused.set(ev.Why, now.Wall)
	case EvNodes:
		m.listed(ev)
	case EvFound:
		m.found(ev)
	case EvAnswer:
		m.answered(ev)
	case EvProgress:
		if p := m.pushes[ev.Push]; p != nil {
			was := p.done
			if p.rate, p.left, p.done = ev.Rate, ev.Left, ev.Done; was == 0 && p.done > 0 {
				m.plan()
			}
		}
	case EvPushed:
		m.pushed(ev)
	case EvSaved:
		if ev.Why == "" {
			m.trouble = notice{}
		} else {
			m.trouble.set(ev.Why, now.Wall)
			m.dirty = true // It is tried again.
		}
	}
	m.advance()
	return m.acts
}

func (m *Machine) do(a Action) { m.acts = append(m.acts, a) }

// watch compares the clock on the wall with the windows.
func (m *Machine) watch() {
	was := m.off
	m.off, m.limit = false, 0
	if !m.list.Open(m.now.Wall) {
		m.off, m.limit = m.list.Outside.Off, m.list.Outside.Rate
	}
	for _, id := range slices.Sorted(maps.Keys(m.pushes)) {
		switch p := m.pushes[id]; {
		case m.off:
			m.stop(p)
		case p.Rate != m.rateOf(p.variant):
			p.Rate = m.rateOf(p.variant)
			m.do(ActRate{p.ID, p.Rate})
		}
	}
	if was && !m.off {
		m.plan()
	}
}

// flush saves what has changed, and again what could not be saved. The own cache is told once all entries are known.
func (m *Machine) flush() {
	if due := m.now.Since-m.lastSave >= saveEvery; m.dirty && m.trouble.why == "" || due && (m.dirty || m.touched) {
		m.do(ActSave{m.state()})
		m.unkept = m.unkept || m.dirty
		m.dirty, m.touched, m.lastSave = false, false, m.now.Since
	}
	// Nobody waits for the own cache to be told, so it is told when nothing is in doubt, however long that takes.
	if m.unkept && !slices.ContainsFunc(m.entries, func(e *entry) bool { return e.doubtful }) {
		m.do(ActKeep{m.ownWishes()})
		m.unkept = false
	}
}

// known reports whether so much is known of entries that wishes may replace the ones of an earlier controller. Wanted says whether the cache
// that they are for has anything that somebody wants: where it has not, none of an entry that was never found is lost.
func (m *Machine) known(entries []*entry, wanted bool) bool {
	for _, e := range entries {
		if m.doubts(e) && (wanted || len(e.tags) > 0) {
			return false
		}
	}
	return true
}

// doubts reports whether it is not known yet what an entry stands for, or may have stood for when an earlier controller found it, and is soon.
func (m *Machine) doubts(e *entry) bool { return e.doubtful && m.now.Since < e.added+doubtFor }

// moved puts a new digest in the place of the one that a variant has.
func (m *Machine) moved(v *variant, f Found) {
	m.dirty = true
	older := []digest.Digest{v.Digest}
	for _, d := range v.older {
		if d != f.Digest && d != v.Digest && len(older) < maxOlder {
			older = append(older, d)
		}
	}
	v.take(f)
	v.older = older
	v.fails, v.next, v.why = 0, 0, ""
	for _, p := range v.pairs {
		p.forgive()
	}
}
