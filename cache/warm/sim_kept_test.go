package warm

import (
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// evicted judges what a cache had to give up.
func (c *checker) evicted(w *world, n *simNode, d digest.Digest) {
	w.each(func(of *simNode, name, ref, platform string) {
		if of != n || !c.seen[ref] {
			return
		}
		told := c.told[ref][platform].digest
		if n.conflict(w.owner, name, told) != "" {
			return
		}
		if told == d && w.now-c.told[ref][platform].at > w.list.CatchUp+time.Minute { // Until then the node may not know.
			c.fail(w, "%s has evicted %s of %s, which is wanted", n.name, d, ref)
		}
		justMoved := w.now-n.moved < w.list.CatchUp+time.Minute && n.owners[name] == "" // by a sender, and nobody wishes it yet
		if n.names[name] == d && !n.holds(name, told) && !justMoved {
			c.fail(w, "%s has evicted the old %s of %s before it held the new one", n.name, d, ref)
		}
	})
}

// kept looks at the state that was saved, and at what the status says of it.
func (c *checker) kept(w *world) {
	const within = 2*saveEvery + 20*time.Second
	trouble := w.m.Snapshot(w.clock()).Trouble
	switch {
	case w.now-w.born < within:
	case c.failed && w.now-c.saves > 10*time.Second && trouble == "":
		c.fail(w, "the status says nothing of a state that could not be saved %v ago", w.now-c.saves)
	case w.full == "" && w.now-w.filled > within && trouble != "":
		c.fail(w, "the status says of the state %q, %v after it could be saved again", trouble, w.now-w.filled)
	}
	if c.looks++; c.looks%8 > 0 || w.full != "" || w.now-max(w.filled, w.born, w.changed) < within {
		return
	}
	s, err := decodeState(w.state)
	if err != nil {
		c.fail(w, "state: %v", err)
		return
	}
	for ref, platforms := range c.told {
		for platform, t := range platforms {
			has := slices.ContainsFunc(s.Images, func(i ImageSaved) bool {
				return i.Ref == ref && slices.ContainsFunc(i.Variants, func(v VariantSaved) bool { return v.Platform == platform && v.Digest == t.digest })
			})
			if !has && c.seen[ref] && c.wanted(w, ref) && w.now-t.at > within {
				c.fail(w, "the state lacks %s of %s", t.digest, ref)
			}
		}
	}
}

// ringTime is when a ring of some priority ran. It runs while ended is 0.
type ringTime struct {
	id, priority int
	began, ended time.Duration
}

// before returns for how long rings of a higher priority ran since a moment, all of them together.
func (c *checker) before(w *world, priority int, since time.Duration) (sum time.Duration) {
	for _, r := range c.rings {
		if r.ended == 0 {
			r.ended = w.now
		}
		if r.priority > priority {
			sum += max(0, r.ended-max(since, r.began))
		}
	}
	return sum
}

// over notes that a ring does not run any more, or none where id is 0.
func (c *checker) over(w *world, id int) {
	for i := range c.rings {
		if r := &c.rings[i]; r.ended == 0 && (id == 0 || r.id == id) {
			r.ended = w.now
		}
	}
	c.rings = slices.DeleteFunc(c.rings, func(r ringTime) bool { return r.ended > 0 && w.now-r.ended > 12*time.Hour })
}

func (w *world) priority(ref string) int {
	for _, i := range w.list.Images {
		if slices.Contains(w.check.refs(&i), ref) {
			return i.Priority
		}
	}
	return 0
}
