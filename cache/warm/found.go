package warm

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// apply goes by a list from now on. What is known of entries, groups and nodes that it shares with the last one stays known, and what
// had failed is tried again. A group whose file or command is another one has the nodes of before until that was read.
func (m *Machine) apply(list *List) {
	m.remember()
	again := m.list != nil
	m.list, m.opens = list, time.Time{}
	groups := map[string]*group{}
	for _, g := range list.Groups {
		now := &group{Group: g, names: g.Names}
		if was := m.groups[g.Name]; was != nil && g.Names == nil {
			now.names = was.names
			if was.File == g.File && was.Command == g.Command {
				now.stale, now.reading, now.awaited = was.stale, was.reading, was.awaited
			}
		}
		groups[g.Name] = now
	}
	m.groups = groups
	known := map[string]*entry{}
	for _, e := range m.entries {
		known[e.key()] = e
	}
	m.entries = nil
	for _, i := range list.Images {
		e := known[i.key()]
		if e == nil {
			e = &entry{Image: i, added: m.now.Since}
			if m.recall(e); again {
				e.next = m.now.Since
			}
			e.doubtful = e.next <= m.now.Since && (len(e.tags) > 0 || m.blind)
		}
		delete(known, i.key())
		renamed := e.Name != i.Name
		e.Image, e.platforms, e.fails = i, nil, 0
		for _, name := range i.Nodes {
			if p := groups[name].Platform; !slices.Contains(e.platforms, p) {
				e.platforms = append(e.platforms, p)
			}
		}
		if renamed {
			for _, t := range e.tags {
				t.again = true
			}
		}
		complete := !slices.ContainsFunc(e.tags, func(t *tag) bool { return t.again || !t.covers(e.platforms) })
		if e.stale.why != "" || len(e.tags) == 0 || !complete {
			e.next = m.now.Since
		}
		m.entries = append(m.entries, e)
	}
	clear(m.hosts)
	for _, n := range m.order {
		n.losses, n.due = 0, 0
	}
	m.rebuild()
	for _, v := range m.variants {
		v.fails, v.next, v.why = 0, 0, ""
		for _, p := range v.pairs {
			p.forgive()
		}
	}
	m.dirty = true
	m.round.soon(m.now.Since)
}

// remember keeps what is known of all entries, for a later list that has them again.
func (m *Machine) remember() {
	for _, i := range m.state().Images {
		m.saved.Images = slices.DeleteFunc(m.saved.Images, func(old ImageSaved) bool { return old.Ref == i.Ref })
		m.saved.Images = append(m.saved.Images, i)
	}
	if n := len(m.saved.Images) - maxTags; n > 0 {
		m.saved.Images = m.saved.Images[n:]
	}
}

// recall takes what was saved of an entry.
func (m *Machine) recall(e *entry) {
	for _, s := range m.saved.Images {
		of, is := strings.CutPrefix(s.Ref, e.Ref)
		if is && e.Tags != "" {
			of, is = strings.CutPrefix(of, ":")
			is = is && e.Matches(of)
		} else {
			is = is && of == ""
		}
		if !is {
			continue
		}
		t := &tag{ref: s.Ref, list: s.List}
		for _, v := range s.Variants {
			t.variants = append(t.variants, &variant{Found: Found{v.Platform, v.Name, v.Digest, v.Bytes}, entry: e, ref: s.Ref, older: v.Older, warm: v.Warm})
			t.asked = append(t.asked, v.Platform)
		}
		e.tags = append(e.tags, t)
		e.found = s.Found
		// A clock that jumped must not put it off for ever.
		e.next = m.now.Since + min(max(0, s.Next.Sub(m.now.Wall)), m.list.Every)
	}
}

// state is what recall reads.
func (m *Machine) state() *State {
	s := &State{Version: stateVersion, Images: []ImageSaved{}}
	for _, e := range m.entries {
		s.Blind = s.Blind || m.doubts(e) && len(e.tags) == 0
		for _, t := range e.tags {
			i := ImageSaved{Ref: t.ref, List: t.list, Found: e.found, Next: m.wall(e.next)}
			for _, v := range t.variants {
				i.Variants = append(i.Variants, VariantSaved{v.Platform, v.Name, v.Digest, v.Bytes, v.older, v.warm})
			}
			if len(i.Variants) > 0 {
				s.Images = append(s.Images, i)
			}
		}
	}
	return s
}

// wall returns what the clock will show at a time of the machine, without a fraction of a second.
func (m *Machine) wall(at time.Duration) time.Time {
	return m.now.Wall.Add(at - m.now.Since).Round(0).UTC().Truncate(time.Second)
}

// lookUp asks for the entries that it is time for, that which waits for longest first. A registry that did not answer comes last, with one at a time.
func (m *Machine) lookUp() {
	running, of := 0, map[string]int{}
	var due []*entry
	for _, e := range m.entries {
		host := registry(e.Ref)
		if e.looking {
			running++
			of[host]++
		} else if e.next <= m.now.Since && m.hosts[host] <= m.now.Since {
			due = append(due, e)
		}
	}
	rank := func(e *entry) int {
		if m.silent[registry(e.Ref)] {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(due, func(a, b *entry) int { return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.next, b.next)) })
	for _, e := range due {
		host := registry(e.Ref)
		if running >= lookups {
			return
		}
		if of[host] >= lookupsOf-rank(e) {
			continue
		}
		known := map[string]digest.Digest{}
		for _, t := range e.tags {
			if !t.again && t.covers(e.platforms) {
				known[t.ref] = t.list
			}
		}
		e.looking, e.began = true, m.now.Since
		running++
		of[host]++
		m.do(ActLookup{Lookup{e.Image, e.platforms, known}})
	}
}

// found takes what an entry was found to be.
func (m *Machine) found(ev EvFound) {
	at := slices.IndexFunc(m.entries, func(e *entry) bool { return e.key() == ev.Lookup.Image.key() })
	if at < 0 || !m.entries[at].looking {
		return
	}
	e := m.entries[at]
	e.looking = false
	m.silent[registry(e.Ref)] = ev.Why != "" && m.now.Since-e.began >= silentFrom
	if ev.Lookup.Image.Name != e.Name || !slices.Equal(ev.Lookup.Platforms, e.platforms) { // The list was edited meanwhile.
		e.next = m.now.Since
		return
	}
	why, sure := ev.Why, ev.Sure
	var tags []*tag
	dirty := m.dirty
	m.dirty = false
	if why == "" {
		sure = !slices.ContainsFunc(ev.Tags, func(t Tag) bool { return t.Why != "" })
		tags, why = m.merge(e, ev)
	}
	if e.doubtful = why != "" && !sure && len(e.tags) == 0 && e.doubtful && e.fails+1 < triesAlone; why != "" {
		e.fails++
		e.stale.set(why, m.now.Wall)
		if e.next = m.now.Since + m.list.Retry.After(e.fails); sure {
			e.next = m.now.Since + m.list.Every
		}
		if host := registry(e.Ref); host != "" && ev.Wait > 0 {
			m.hosts[host] = max(m.hosts[host], m.now.Since+min(ev.Wait, m.list.Retry.Most))
			m.put(host, why)
		}
		m.dirty = m.dirty || dirty
		return
	}
	every := float64(m.list.Every)
	e.next = m.now.Since + time.Duration(every-every*jitter*m.rand.Float64())
	e.fails, e.stale, e.found, m.touched = 0, notice{}, m.wall(m.now.Since), true
	if !slices.Equal(e.tags, tags) {
		e.tags, m.dirty = tags, true
	}
	if m.dirty {
		m.rebuild()
		m.round.soon(m.now.Since)
	}
	m.dirty = m.dirty || dirty
}

// put puts off what is due of a registry that does not want to be asked. That is an answer for each of its entries: what is known of them stands.
func (m *Machine) put(host, why string) {
	for _, e := range m.entries {
		if registry(e.Ref) == host && !e.looking && e.next <= m.now.Since {
			e.doubtful = e.doubtful && len(e.tags) == 0
			e.stale.set(why, m.now.Wall)
			e.next = m.hosts[host]
		}
	}
}

// merge puts what was found to what is known. A lookup without a result is a failure, as the last result stands then. Of several tags
// those count that have a result.
func (m *Machine) merge(e *entry, ev EvFound) (tags []*tag, why string) {
	good := 0
	for i := range ev.Tags {
		f := &ev.Tags[i]
		t := e.tag(f.Ref)
		if f.Why == "" && len(f.Variants) == 0 && (t == nil || t.again || t.list != f.List) {
			f.Why = "there is no image of the platforms that the nodes have"
		}
		if f.Why == "" {
			good++
		} else if why == "" {
			why = f.Why
			if e.Tags != "" {
				why = f.Ref + ": " + why
			}
		}
	}
	switch {
	case good > 0:
	case len(ev.Tags) == 0:
		return nil, "no tag matches " + e.Tags
	default:
		return nil, why
	}
	for _, f := range ev.Tags {
		t := e.tag(f.Ref)
		if t == nil {
			t = &tag{ref: f.Ref}
		}
		switch {
		case f.Why != "":
			t.stale.set(f.Why, m.now.Wall)
			if len(t.variants) == 0 && f.List != "" && (t.list != f.List || !slices.Equal(t.asked, ev.Lookup.Platforms)) {
				t.list, t.asked, m.dirty = f.List, ev.Lookup.Platforms, true
			}
		case len(f.Variants) > 0:
			t.merge(m, e, f)
			t.asked, t.stale = ev.Lookup.Platforms, notice{}
		case len(t.variants) > 0:
			t.stale = notice{}
		}
		tags = append(tags, t)
	}
	return tags, ""
}

func (t *tag) merge(m *Machine, e *entry, found Tag) {
	var variants []*variant
	for _, f := range found.Variants {
		v := t.variant(f.Platform)
		switch {
		case v == nil:
			v = &variant{Found: f, entry: e, ref: t.ref}
			m.dirty = true
		case v.Digest != f.Digest:
			m.moved(v, f)
		case v.Name != f.Name:
			v.take(f)
			m.dirty = true
			for _, p := range v.pairs {
				p.asked, p.wished, p.named = "", "", ""
			}
		}
		variants = append(variants, v)
	}
	m.dirty = m.dirty || t.list != found.List || len(variants) != len(t.variants)
	t.list, t.variants, t.again = found.List, variants, false
}

// rebuild makes the nodes, and what each is to hold, of the groups and entries.
func (m *Machine) rebuild() {
	before := m.nodes
	m.nodes, m.order, m.variants = map[string]*node{}, nil, nil
	for _, e := range m.entries {
		for _, t := range e.tags {
			for _, v := range t.variants {
				v.entry, v.pairs, v.left = e, nil, nil
				m.variants = append(m.variants, v)
			}
		}
	}
	for _, e := range m.entries {
		seen := map[string]bool{}
		for _, g := range e.Nodes {
			for _, name := range m.groups[g].names {
				if !seen[name] {
					seen[name] = true
					m.give(m.listedNode(name, before), e, m.groups[g].Platform)
				}
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(m.pushes)) {
		if p := m.pushes[id]; !slices.Contains(m.variants, p.variant) {
			m.stop(p)
		}
	}
}

// listedNode returns a node, as it was before where it was listed.
func (m *Machine) listedNode(name string, before map[string]*node) *node {
	n := m.nodes[name]
	if n == nil {
		if n = before[name]; n == nil {
			n = &node{name: name, room: -1}
		}
		n.before = n.named
		n.entries, n.pairs, n.named = nil, nil, make(map[string]*pair, len(n.before)+1)
		m.nodes[name] = n
		m.order = append(m.order, n)
	}
	return n
}

// give makes the pairs of a node and an entry.
func (m *Machine) give(n *node, e *entry, platform string) {
	n.entries = append(n.entries, e)
	for _, t := range e.tags {
		v := t.variant(platform)
		if v == nil {
			continue
		}
		if other := n.pair(v.Name); other != nil {
			v.left = append(v.left, leftOut{n.name, fmt.Sprintf("has the image %s under the name %s", other.v.ref, v.Name)})
			continue
		}
		if len(n.pairs) == mostPairs {
			v.left = append(v.left, leftOut{n.name, fmt.Sprintf("has %d images before this one, which is the most", mostPairs)})
			continue
		}
		p := n.before[v.Name]
		if p == nil || p.v != v {
			p = &pair{node: n, v: v}
		}
		n.pairs, v.pairs = append(n.pairs, p), append(v.pairs, p)
		n.named[v.Name] = p
	}
}
