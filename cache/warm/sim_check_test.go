package warm

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// A checker looks at what a controller does to a world. It knows the world and the list, and nothing of the machine.
type checker struct {
	wrong    string                       // the first thing that is
	told     map[string]map[string]toldOf // by Ref and platform: what a controller has been told
	seen     map[string]bool              // Refs that this controller was told of
	answered map[*Query]bool
	tagsOf   map[string][]string // Refs that it was told of last, by that of their entry
	lookups  map[string]*tries   // by Ref
	saves    time.Duration       // the last one
	failed   bool                // it did
	looks    int
	rings    []ringTime
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
	// conflict and full say what it was.
	conflict, full bool
	room           int64 // when it was full
	ended          time.Duration
	said           said
}

func newChecker() *checker {
	return &checker{told: map[string]map[string]toldOf{}, seen: map[string]bool{}, answered: map[*Query]bool{}, lookups: map[string]*tries{}, pairs: map[string]*pairCheck{}, asks: map[string]int{}, closed: map[string]time.Duration{}, tagsOf: map[string][]string{}, saves: -time.Hour}
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
	clear(c.tagsOf)
	c.failed = false
	if s != nil {
		for _, i := range s.Images {
			// What was told behind the last save that went well, the next controller does not know.
			c.seen[i.Ref] = !slices.ContainsFunc(i.Variants, func(v VariantSaved) bool { return c.told[i.Ref][v.Platform].digest != v.Digest })
			repository, _, _ := cutTag(i.Ref)
			c.tagsOf[repository] = append(c.tagsOf[repository], i.Ref)
		}
	}
}

// save judges when the state is saved: after it failed, once a minute.
func (c *checker) save(w *world) {
	if c.failed && w.now-c.saves < saveEvery {
		c.fail(w, "the state is saved again %v after it failed", w.now-c.saves)
	}
	c.saves, c.failed = w.now, w.full != ""
}

// refs returns the Refs that an entry stands for, as far as the controller was told.
func (c *checker) refs(i *Image) []string {
	if i.Tags != "" {
		return c.tagsOf[i.Ref]
	}
	return []string{i.Ref}
}

// wanted reports whether a Ref is of the list.
func (c *checker) wanted(w *world, ref string) bool {
	return slices.ContainsFunc(w.list.Images, func(i Image) bool { return slices.Contains(c.refs(&i), ref) })
}

// reloaded forgets failures, as the controller does.
func (c *checker) reloaded() {
	clear(c.lookups)
	clear(c.closed)
	for _, p := range c.pairs {
		p.failed, p.full = 0, false
	}
}

func (c *checker) pair(name, node string) *pairCheck {
	key := name + "@" + node
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
				if c.seen[ref] && c.wanted(w, ref) && !slices.ContainsFunc(a.Wishes, func(wish Wish) bool { return wish.Digest == t.digest }) {
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
	shut := !w.list.Open(w.clock().Wall) && !w.list.Open(w.clock().Wall.Add(-15*time.Second)) // longer than from tick to tick
	if shut && w.list.Outside.Off && w.now-w.jumped > 15*time.Second {
		c.fail(w, "a ring outside of the windows")
	}
	if len(p.Nodes) == 0 {
		c.fail(w, "a ring without nodes")
	}
	at := slices.IndexFunc(w.list.Images, func(i Image) bool { return slices.Contains(c.refs(&i), p.Ref) })
	if at < 0 {
		c.fail(w, "%s is pushed, which is not listed", p.Ref)
		return
	}
	c.rings = append(c.rings, ringTime{id: p.ID, priority: w.list.Images[at].Priority, began: w.now})
	for _, name := range p.Nodes {
		n, pc := w.nodes[name], c.pair(p.Name, name)
		if n.holds(p.Name, p.Digest) && len(w.controllers) == 1 {
			c.fail(w, "%s is pushed to %s, which holds it", p.Digest, name)
		}
		unseen := w.now-n.changed < w.list.CatchUp+time.Minute // It may have been wiped since it answered.
		if !slices.Contains(n.wished[p.Digest], w.owner) && n.up && !unseen {
			c.fail(w, "%s is pushed to %s before the wish for it", p.Digest, name)
		}
		if by := n.conflict(w.owner, p.Name, p.Digest); by != "" && w.now-max(n.moved, n.changed) > w.list.CatchUp+time.Minute {
			c.fail(w, "%s is pushed to %s, where it %s", p.Name, name, by)
		}
		if pc.said.digest == p.Digest && pc.said.forbids != "" {
			c.fail(w, "%s is pushed to %s, which said: %s", p.Name, name, pc.said.forbids)
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
	pc := c.pair(p.Name, r.Node)
	pc.ended = w.now
	switch r.Outcome {
	case Interrupted:
	case Committed:
		pc.failed, pc.full = 0, false
	default:
		if c.told[p.Ref][p.Platform].digest != p.Digest && (r.Outcome == Full || r.Outcome == Failed) {
			return // The digest moved meanwhile, and the failure was of the old one.
		}
		pc.failed++
		pc.last, pc.began = w.now, p.began
		pc.conflict, pc.full, pc.room = r.Outcome == Conflict, r.Outcome == Full, w.nodes[r.Node].room()
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
	if ev.Why != "" || !slices.ContainsFunc(ev.Tags, func(t Tag) bool { return t.Why == "" }) {
		t.failed++
		if t.last = w.now; ev.Wait > 0 {
			c.closed[registry(ref)] = w.now + min(ev.Wait, w.list.Retry.Most)
		}
		return
	}
	t.failed = 0
	before := c.tagsOf[ref]
	c.tagsOf[ref] = nil
	for _, t := range ev.Tags {
		if ev.Lookup.Image.Tags != "" && !slices.Contains(before, t.Ref) { // It was gone.
			delete(c.told, t.Ref)
			delete(c.seen, t.Ref)
			for key := range c.pairs {
				if strings.HasPrefix(key, nameOf(&ev.Lookup.Image, t.Ref)+"@") {
					delete(c.pairs, key)
				}
			}
		}
		if c.tagsOf[ref] = append(c.tagsOf[ref], t.Ref); t.Why != "" {
			continue
		}
		first := !c.seen[t.Ref] // of this controller, which did not know what the one before was told
		c.seen[t.Ref] = true
		if c.told[t.Ref] == nil {
			c.told[t.Ref] = map[string]toldOf{}
		}
		for _, f := range t.Variants {
			if was := c.told[t.Ref][f.Platform].digest; first || was != f.Digest {
				c.moved(was)
				c.told[t.Ref][f.Platform] = toldOf{f.Digest, w.now}
			}
		}
	}
}

// moved forgets what failed of a digest that a tag has left: should it come back, it is tried anew.
func (c *checker) moved(from digest.Digest) {
	for _, pc := range c.pairs {
		if pc.digest == from {
			pc.failed, pc.full = 0, false
		}
	}
}

// each calls do for every image that a node is to hold.
func (w *world) each(do func(n *simNode, name, ref, platform string)) {
	for at := range w.list.Images {
		i := &w.list.Images[at]
		for _, name := range i.Nodes {
			g := w.list.Groups[slices.IndexFunc(w.list.Groups, func(g Group) bool { return g.Name == name })]
			for _, node := range w.nodesOf[name] {
				for _, ref := range w.check.refs(i) {
					do(w.nodes[node], nameOf(i, ref), ref, g.Platform)
				}
			}
		}
	}
}

// look compares the world with the promise, and the status with the world.
func (c *checker) look(w *world) {
	open := w.list.Open(w.clock().Wall) || !w.list.Outside.Off
	if !open {
		c.open = -1
		for id, p := range w.pushes {
			if !p.done && w.now-w.jumped > 15*time.Second {
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
	c.kept(w)
	if !open {
		return
	}
	bound := w.list.CatchUp + 40*time.Second
	for _, i := range w.list.Images { // Two rings may run already, and those of other images may come before.
		for _, ref := range c.refs(&i) {
			longest := max(w.size[w.tags[ref+"linux/amd64"]], w.size[w.tags[ref+"linux/arm64"]])
			bound += 3 * time.Duration(float64(longest)/simRate*1e9)
		}
	}
	w.each(func(n *simNode, name, ref, platform string) {
		told := c.told[ref][platform]
		if told.digest == "" || !c.seen[ref] || !n.up || n.holds(name, told.digest) || n.broken || n.flapping || n.conflict(w.owner, name, told.digest) != "" {
			return
		}
		if _, held := n.blobs[told.digest]; !held && n.room() < w.size[told.digest] {
			return
		}
		since := max(told.at, n.changed, w.born, w.changed, c.open, c.source+w.list.Retry.Most, n.grew, n.moved)
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
		if w.now-since > bound && w.now-since > bound+c.before(w, w.priority(ref), since) {
			c.fail(w, "%s lacks %s of priority %d for %v, at most %v, and %v for others: %s", n.name, ref, w.priority(ref), w.now-since, bound, c.before(w, w.priority(ref), since), w.said(ref, n.name))
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
			if w.now-max(n.changed, n.wiped, w.born, n.moved) > w.list.CatchUp+time.Minute && n.up && !n.holds(i.Name, i.Digest) {
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
