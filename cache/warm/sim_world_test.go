package warm

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/opencontainers/go-digest"
)

// simPush is a ring that runs.
type simPush struct {
	Push
	bytes int64
	began time.Duration
	done  bool
}

// A cluster is what controllers share: nodes, a registry and a clock.
type cluster struct {
	rng    *rand.Rand
	now    time.Duration
	wall   time.Time     // at now 0
	jumped time.Duration // when the clock on the wall did
	queue  simQueue
	seq    int
	quiet  time.Duration // no faults from then on

	failing  string        // what the registry answers
	wait     time.Duration // and for how long it does not want to be asked
	damaged  string        // a tag that cannot be read
	source   string        // why pushes fail at their source
	full     string        // why the state cannot be saved
	filled   time.Duration // when that last changed
	nodesOf  map[string][]string
	command  string                   // what the list command does: "", fails or is empty
	tags     map[string]digest.Digest // by Ref and platform
	tagsOf   map[string][]string      // Refs, by that of their repository
	size     map[digest.Digest]int64
	nodes    map[string]*simNode
	order    []*simNode
	lawless  bool // names have no owners
	switches int  // of names from one digest to another

	controllers []*world
}

// A world is a cluster as one controller has it, which may die.
type world struct {
	*cluster
	owner   string
	list    *List
	m       *Machine
	life    int // of the controller
	born    time.Duration
	changed time.Duration // the list
	state   []byte
	pushes  map[int]*simPush
	check   *checker
	// broken changes what the machine does, to see that the checker finds it.
	broken func(w *world, acts []Action) []Action
}

type simEvent struct {
	at  time.Duration
	seq int
	do  func()
}

type simQueue []simEvent

func (q simQueue) Len() int { return len(q) }
func (q simQueue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q simQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *simQueue) Push(x any)   { *q = append(*q, x.(simEvent)) }
func (q *simQueue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}

func (c *cluster) after(d time.Duration, do func()) {
	c.seq++
	heap.Push(&c.queue, simEvent{c.now + d, c.seq, do})
}

// live is after for the controller that runs now only.
func (w *world) live(d time.Duration, do func()) {
	life := w.life
	w.after(d, func() {
		if w.life == life && w.m != nil {
			do()
		}
	})
}

func (c *cluster) between(a, b time.Duration) time.Duration {
	return a + time.Duration(c.rng.Int64N(int64(b-a)))
}

func (w *world) clock() Now { return Now{w.now - w.born, w.wall.Add(w.now)} }

// run lets time pass until end.
func (w *world) run(end time.Duration) {
	for w.queue.Len() > 0 && w.queue[0].at <= end && w.wrong() == "" {
		e := heap.Pop(&w.queue).(simEvent)
		w.now = e.at
		e.do()
	}
	w.now = end
}

// wrong returns the first thing that is, of any controller.
func (c *cluster) wrong() string {
	for _, w := range c.controllers {
		if w.check.wrong != "" {
			return w.owner + " " + w.check.wrong
		}
	}
	return ""
}

func (w *world) start(withState bool) {
	var s *State
	if withState && w.state != nil {
		var err error
		if s, err = decodeState(w.state); err != nil {
			w.check.fail(w, "state: %v", err)
		}
	}
	w.life++
	w.born = w.now
	w.m = New(w.clock(), w.list, s, w.rng.Uint64())
	w.check.started(w, s)
	w.tick()
}

func (w *world) kill() {
	w.m = nil
	w.pushes = map[int]*simPush{}
	w.check.over(w, 0)
	clear(w.check.answered)
}

func (w *world) tick() {
	w.step(EvTick{})
	w.live(10*time.Second, w.tick)
}

func (w *world) step(ev Event) {
	acts := w.m.Step(w.clock(), ev)
	if w.broken != nil {
		acts = w.broken(w, acts)
	}
	for _, a := range acts {
		w.check.action(w, a)
		w.do(a)
	}
}

func (w *world) do(a Action) {
	switch a := a.(type) {
	case ActNodes:
		w.live(50*time.Millisecond, func() {
			ev := EvNodes{Group: a.Group.Name, Names: w.nodesOf[a.Group.Name]}
			switch w.command {
			case "fails":
				ev.Names, ev.Why = nil, "exit status 1"
			case "empty":
				ev.Names = nil
			}
			w.step(ev)
		})
	case ActLookup:
		began := w.now
		w.live(w.between(100*time.Millisecond, 2*time.Second), func() {
			ev := w.lookup(a.Lookup)
			if w.changed > began { // The entry may be a new one, which has asked again.
				for _, t := range ev.Tags {
					delete(w.check.seen, t.Ref)
				}
			}
			w.step(ev)
		})
	case ActAsk:
		w.ask(a.Queries)
	case ActPush:
		w.push(a.Push)
	case ActStop:
		if p := w.pushes[a.Push]; p != nil && !p.done {
			p.done = true
			w.live(time.Second, func() { w.ended(p, "", true) })
		}
	case ActSave:
		data, err := a.State.encode()
		if err != nil {
			w.check.fail(w, "state: %v", err)
		}
		w.check.save(w)
		if w.full == "" {
			w.state = data
		}
		why := w.full
		w.live(50*time.Millisecond, func() { w.step(EvSaved{why}) })
	}
}

func (w *world) lookup(l Lookup) EvFound {
	ev := EvFound{Lookup: l, Why: w.failing, Wait: w.wait}
	if registry(l.Image.Ref) == "" {
		ev.Why, ev.Wait = "", 0
	}
	if ev.Why != "" {
		w.check.looked(w, ev)
		return ev
	}
	refs := []string{l.Image.Ref}
	if l.Image.Tags != "" {
		refs = w.tagsOf[l.Image.Ref]
	}
	for _, ref := range refs {
		t := Tag{Ref: ref, List: digest.FromString("list")}
		if ref == w.damaged {
			ev.Tags = append(ev.Tags, Tag{Ref: ref, Why: "the registry has no such image"})
			continue
		}
		for _, p := range l.Platforms {
			d := w.tags[ref+p]
			t.List = digest.FromString(t.List.String() + d.String())
			t.Variants = append(t.Variants, Found{p, nameOf(&l.Image, ref), d, w.size[d]})
		}
		ev.Tags = append(ev.Tags, t)
	}
	w.check.looked(w, ev)
	for i := range ev.Tags {
		if t := &ev.Tags[i]; l.Known[t.Ref] == t.List && t.Why == "" {
			t.Variants = nil
		}
	}
	return ev
}

// nameOf returns the name that an image has in the caches.
func nameOf(i *Image, ref string) string {
	if i.Name != "" {
		return i.Name
	}
	return "name of " + ref
}

// ask answers for the nodes that are up soon, and for the others late.
func (w *world) ask(queries []*Query) {
	asked := w.now
	answer := func(up bool) func() {
		return func() {
			for _, q := range queries {
				n := w.nodes[q.Node]
				switch {
				case w.check.answered[q] || n.up != up && up:
				case up:
					w.check.answered[q] = true
					a := n.answer(w, q)
					w.check.hears(w, q, a, asked)
					w.step(EvAnswer{Query: q, Answer: a})
				default:
					w.step(EvAnswer{Query: q, Why: "no route to host"})
				}
				if w.m == nil {
					return
				}
			}
		}
	}
	w.live(200*time.Millisecond, answer(true))
	w.live(5*time.Second, func() {
		answer(false)()
		for _, q := range queries {
			delete(w.check.answered, q)
		}
	})
}

func (n *simNode) answer(w *world, q *Query) Answer {
	if q.Wishes != nil {
		n.wish(w.owner, q.Wishes)
	}
	a := Answer{Room: n.room(), Wanted: n.wanted(), Most: n.cap, Images: make([]Holding, len(q.Images))}
	for i, question := range q.Images {
		h := &a.Images[i]
		h.Named = n.names[question.Name]
		if _, held := n.blobs[question.Digest]; !held {
			h.Lacks = w.size[question.Digest]
			if unknown(question.Digest) {
				h.Lacks = -1
			}
		}
		h.Conflict = w.conflict(n, question.Name, question.Digest)
	}
	return a
}

// conflict is what a node says to this controller.
func (w *world) conflict(n *simNode, name string, d digest.Digest) string {
	if w.lawless {
		return ""
	}
	return n.conflict(w.owner, name, d)
}

const simRate = 100e6

func (w *world) push(p Push) {
	s := &simPush{Push: p, bytes: w.size[p.Digest], began: w.now}
	w.pushes[p.ID] = s
	if w.source != "" {
		s.done = true
		w.live(3*time.Second, func() { w.ended(s, w.source, true) })
		return
	}
	w.live(time.Duration(float64(s.bytes)/simRate*1e9), func() {
		if !s.done {
			s.done = true
			w.ended(s, "", false)
		}
	})
}

// ended gives a row for each node.
func (w *world) ended(p *simPush, why string, interrupted bool) {
	delete(w.pushes, p.ID)
	w.check.over(w, p.ID)
	ev := EvPushed{Push: p.ID, Why: why}
	for _, name := range p.Nodes {
		n, r := w.nodes[name], Row{Node: name}
		switch {
		case interrupted:
			r.Outcome = Interrupted
		case !n.up:
			r.Outcome, r.Why = Unreachable, "no route to host"
		case n.changed > p.began:
			r.Outcome, r.Why = Failed, "the connection was lost"
		case n.broken:
			r.Outcome, r.Why = Failed, "input/output error"
		case w.conflict(n, p.Name, p.Digest) != "":
			r.Outcome, r.Why = Conflict, w.conflict(n, p.Name, p.Digest)
		default:
			var ok bool
			if r.Needs, ok = n.store(w, p.Digest, p.bytes); ok {
				if was := n.names[p.Name]; was != p.Digest {
					if n.names[p.Name], n.owners[p.Name] = p.Digest, w.owner; was != "" {
						w.switches++
					}
					if len(w.controllers) > 1 {
						n.moved = w.now // The other one does not know.
					}
				}
				r.Outcome = Committed
			} else {
				r.Outcome, r.Why = Full, fmt.Sprintf("full: needs %d bytes", r.Needs)
			}
		}
		w.check.row(w, p, r)
		ev.Rows = append(ev.Rows, r)
	}
	w.step(ev)
}
