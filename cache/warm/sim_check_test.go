package warm

import (
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// A checker looks at what a controller does to a world. It knows the world and the list, and nothing of the machine.
type checker struct {
	wrong    string                       // the first thing that is
	told     map[string]map[string]toldOf // by Ref and platform: what a controller has been told
	seen     map[string]bool              // Refs that this controller was told of
	answered map[*Query]bool
	lookups  map[string]*tries        // by Ref
	closed   map[string]time.Duration // registries, until
	pairs    map[string]*pairCheck
	asks     map[string]int
	open     time.Duration // since when the windows are
	source   time.Duration // when pushes last failed there
	pushes   int
	warmest  int
}

type toldOf struct {
	digest digest.Digest
	at     time.Duration
}

type tries struct {
	failed int
	last   time.Duration
}

type pairCheck struct {
	tries
	push   int
	began  time.Duration // the push that failed last
	digest digest.Digest
	full   bool
	room   int64 // when it was full
}

func newChecker() *checker {
	return &checker{told: map[string]map[string]toldOf{}, seen: map[string]bool{}, answered: map[*Query]bool{}, lookups: map[string]*tries{}, pairs: map[string]*pairCheck{}, asks: map[string]int{}, closed: map[string]time.Duration{}}
}

func (c *checker) fail(w *world, format string, args ...any) {
	if c.wrong == "" {
		c.wrong = fmt.Sprintf("at %v: ", w.now) + fmt.Sprintf(format, args...)
	}
}

// started forgets what only the last controller knew.
func (c *checker) started(w *world, s *State) {
	clear(c.lookups)
	clear(c.pairs)
	clear(c.seen)
	clear(c.closed)
	if s != nil {
		for _, i := range s.Images {
			c.seen[i.Ref] = true
		}
	}
}

// reloaded forgets failures, as the controller does.
func (c *checker) reloaded() {
	clear(c.lookups)
	clear(c.closed)
	for _, p := range c.pairs {
		p.failed, p.full = 0, false
	}
}

func (c *checker) pair(p *Push, node string) *pairCheck {
	key := p.Name + "@" + node
	if c.pairs[key] == nil {
		c.pairs[key] = &pairCheck{}
	}
	return c.pairs[key]
}

func (c *checker) action(w *world, a Action) {
	switch a := a.(type) {
	case ActLookup:
		ref := a.Lookup.Image.Ref
		t := c.lookups[ref]
		if t == nil {
			t = &tries{last: -time.Hour}
			c.lookups[ref] = t
		}
		least := w.list.Every * 8 / 10
		if t.failed > 0 {
			least = w.list.Retry.After(t.failed)
		}
		if w.now-t.last < least {
			c.fail(w, "%s is asked for %v after the last time, and %d failures", ref, w.now-t.last, t.failed)
		}
		if until := c.closed[registry(ref)]; w.now < until {
			c.fail(w, "%s is asked for %v before its registry wants it", ref, until-w.now)
		}
		t.last = w.now
	case ActAsk:
		for _, q := range a.Queries {
			c.asks[q.Node]++
		}
	case ActPush:
		c.push(w, &a.Push)
	case ActKeep:
		for ref, platforms := range c.told {
			for _, t := range platforms {
				listed := slices.ContainsFunc(w.list.Images, func(i Image) bool { return i.Ref == ref })
				if c.seen[ref] && listed && !slices.ContainsFunc(a.Wishes, func(wish Wish) bool { return wish.Digest == t.digest }) {
					c.fail(w, "the own cache does not keep %s", ref)
				}
			}
		}
	}
}

func (c *checker) push(w *world, p *Push) {
	c.pushes++
	if len(w.pushes) >= w.list.Rings {
		c.fail(w, "%d rings run already", len(w.pushes))
	}
	if !w.list.Open(w.clock().Wall) && w.list.Outside.Off {
		c.fail(w, "a ring outside of the windows")
	}
	if len(p.Nodes) == 0 {
		c.fail(w, "a ring without nodes")
	}
	for _, name := range p.Nodes {
		n, pc := w.nodes[name], c.pair(p, name)
		if n.holds(p.Name, p.Digest) {
			c.fail(w, "%s is pushed to %s, which holds it", p.Digest, name)
		}
		unseen := w.now-n.changed < w.list.CatchUp+time.Minute // It may have been wiped since it answered.
		if !n.wished[p.Digest] && n.up && !unseen {
			c.fail(w, "%s is pushed to %s before the wish for it", p.Digest, name)
		}
		if pc.push != 0 && w.pushes[pc.push] != nil {
			c.fail(w, "%s is in two rings of %s", name, p.Name)
		}
		if pc.digest != p.Digest || n.changed >= pc.began && len(n.outages) > 0 {
			pc.failed, pc.full = 0, false
		}
		if pc.failed > 0 && w.now-pc.last < w.list.Retry.After(pc.failed) {
			c.fail(w, "%s is pushed to %s again %v after failure %d", p.Name, name, w.now-pc.last, pc.failed)
		}
		if pc.full && n.room() <= pc.room {
			c.fail(w, "%s is pushed to %s, which was full with room for %d of %d and has %d", p.Name, name, pc.room, w.size[p.Digest], n.room())
		}
		pc.push, pc.digest = p.ID, p.Digest
	}
}

func (c *checker) row(w *world, p *simPush, r Row) {
	pc := c.pair(&p.Push, r.Node)
	switch r.Outcome {
	case Interrupted:
	case Committed:
		pc.failed, pc.full = 0, false
	default:
		pc.failed++
		pc.last, pc.began = w.now, p.began
		pc.full, pc.room = r.Outcome == Full, w.nodes[r.Node].room()
	}
}

// looked notes what a controller is told.
func (c *checker) looked(w *world, ev EvFound) {
	ref := ev.Lookup.Image.Ref
	t := c.lookups[ref]
	if t == nil {
		t = &tries{}
		c.lookups[ref] = t
	}
	if ev.Why != "" {
		t.failed++
		if t.last = w.now; ev.Wait > 0 {
			c.closed[registry(ref)] = w.now + min(ev.Wait, w.list.Retry.Most)
		}
		return
	}
	t.failed = 0
	c.seen[ref] = true
	if c.told[ref] == nil {
		c.told[ref] = map[string]toldOf{}
	}
	for _, f := range ev.Tags[0].Variants {
		if c.told[ref][f.Platform].digest != f.Digest {
			c.told[ref][f.Platform] = toldOf{f.Digest, w.now}
		}
	}
}

// each calls do for every image that a node is to hold.
func (w *world) each(do func(n *simNode, i *Image, platform string)) {
	for at := range w.list.Images {
		i := &w.list.Images[at]
		for _, name := range i.Nodes {
			g := w.list.Groups[slices.IndexFunc(w.list.Groups, func(g Group) bool { return g.Name == name })]
			for _, node := range w.nodesOf[name] {
				do(w.nodes[node], i, g.Platform)
			}
		}
	}
}

// evicted judges what a cache had to give up.
func (c *checker) evicted(w *world, n *simNode, d digest.Digest) {
	w.each(func(of *simNode, i *Image, platform string) {
		if of != n || !c.seen[i.Ref] {
			return
		}
		name := "name of " + i.Ref
		if n.foreign[name] {
			return
		}
		if c.told[i.Ref][platform].digest == d {
			c.fail(w, "%s has evicted %s of %s, which is wanted", n.name, d, i.Ref)
		}
		if n.names[name] == d && !n.holds(name, c.told[i.Ref][platform].digest) {
			c.fail(w, "%s has evicted the old %s of %s before it held the new one", n.name, d, i.Ref)
		}
	})
}

// look compares the world with the promise, and the status with the world.
func (c *checker) look(w *world) {
	open := w.list.Open(w.clock().Wall) || !w.list.Outside.Off
	if !open {
		c.open = -1
		for id, p := range w.pushes {
			if !p.done {
				c.fail(w, "ring %d runs outside of the windows", id)
			}
		}
	} else if c.open < 0 {
		c.open = w.now
	}
	if w.source != "" || w.command != "" {
		c.source = w.now
	}
	if w.m == nil {
		return
	}
	c.status(w)
	if !open {
		return
	}
	bound := w.list.CatchUp + 40*time.Second
	for _, i := range w.list.Images { // Two rings may run already, and those of other images may come before.
		longest := max(w.size[w.tags[i.Ref+"linux/amd64"]], w.size[w.tags[i.Ref+"linux/arm64"]])
		bound += 3 * time.Duration(float64(longest)/simRate*1e9)
	}
	w.each(func(n *simNode, i *Image, platform string) {
		name, told := "name of "+i.Ref, c.told[i.Ref][platform]
		if told.digest == "" || !c.seen[i.Ref] || !n.up || n.holds(name, told.digest) || n.broken || n.foreign[name] || n.flapping {
			return
		}
		if _, held := n.blobs[told.digest]; !held && n.room() < w.size[told.digest] {
			return
		}
		since := max(told.at, n.changed, w.born, w.changed, c.open, c.source+w.list.Retry.Most, n.grew)
		pc := c.pairs[name+"@"+n.name]
		if pc != nil && w.pushes[pc.push] != nil {
			return
		}
		if pc != nil && pc.failed > 0 {
			if since = max(since, pc.last+w.list.Retry.After(pc.failed)); pc.full {
				return
			}
		}
		recent := 0
		for _, at := range n.outages {
			if w.now-at < 12*time.Hour {
				recent++
			}
		}
		if recent > flapsAfter {
			since += w.list.Retry.Most
		}
		if w.now-since > bound {
			c.fail(w, "%s lacks %s for %v, at most %v: %s", n.name, i.Ref, w.now-since, bound, w.said(i.Ref, n.name))
		}
	})
}

// status compares what the controller says with the world. Of what has changed a moment ago it cannot know.
func (c *checker) status(w *world) {
	s := w.m.Snapshot(w.clock())
	for _, i := range s.Images {
		warm := 0
		for _, row := range i.Nodes {
			n := w.nodes[row.Node]
			if row.State != NodeWarm {
				continue
			}
			warm++
			if w.now-max(n.changed, n.wiped, w.born) > w.list.CatchUp+time.Minute && n.up && !n.holds(i.Name, i.Digest) {
				c.fail(w, "the status calls %s warm of %s", row.Node, i.Ref)
			}
		}
		if warm != i.Warm {
			c.fail(w, "the status counts %d warm of %s, and has %d rows", i.Warm, i.Ref, warm)
		}
		c.warmest = max(c.warmest, warm)
	}
}

// said returns what the controller says of a node and an image.
func (w *world) said(ref, node string) string {
	for _, i := range w.m.Snapshot(w.clock()).Images {
		for _, row := range i.Nodes {
			if i.Ref == ref && row.Node == node {
				return fmt.Sprintf("%s %s, %+v", i.State, i.Reason, row)
			}
		}
	}
	return "nothing"
}
