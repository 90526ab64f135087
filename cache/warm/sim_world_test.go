package warm

import (
	"cmp"
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// simNode is a node of the simulation with its cache.
type simNode struct {
	name     string
	up       bool
	changed  time.Duration // when it last went up or down, or was wiped
	wiped    time.Duration
	outages  []time.Duration
	flapping bool
	broken   bool // pushes to it fail
	cap      int64
	blobs    map[digest.Digest]simBlob
	names    map[string]digest.Digest
	wished   map[digest.Digest]bool
	foreign  map[string]bool // names of another warmer
	grew     time.Duration   // when it last had more room
}

type simBlob struct {
	bytes int64
	used  time.Duration
	pin   bool // a wish of the owner local
}

func (n *simNode) room() int64 {
	room := n.cap
	for d, b := range n.blobs {
		if b.pin || n.wished[d] {
			room -= b.bytes
		}
	}
	return max(0, room)
}

// store makes room as a cache does, least recently used first, and takes a blob.
func (n *simNode) store(w *world, d digest.Digest, bytes int64) (needs int64, ok bool) {
	if _, held := n.blobs[d]; held {
		return 0, true
	}
	used := bytes
	var others []digest.Digest
	for d, b := range n.blobs {
		used += b.bytes
		if !b.pin && !n.wished[d] {
			others = append(others, d)
		}
	}
	slices.SortFunc(others, func(a, b digest.Digest) int {
		return cmp.Or(cmp.Compare(n.blobs[a].used, n.blobs[b].used), cmp.Compare(a, b))
	})
	for used > n.cap && len(others) > 0 {
		used -= n.blobs[others[0]].bytes
		w.check.evicted(w, n, others[0])
		n.evict(others[0])
		others = others[1:]
	}
	if used > n.cap {
		return bytes, false
	}
	n.blobs[d] = simBlob{bytes: bytes, used: w.now}
	return 0, true
}

func (n *simNode) evict(d digest.Digest) {
	delete(n.blobs, d)
	for name, to := range n.names {
		if to == d {
			delete(n.names, name)
		}
	}
}

// holds reports whether a node is warm, whoever asks.
func (n *simNode) holds(name string, d digest.Digest) bool {
	_, held := n.blobs[d]
	return held && n.names[name] == d
}

// simPush is a ring that runs.
type simPush struct {
	Push
	bytes int64
	began time.Duration
	done  bool
}

// A world is a cluster, a registry and a clock, and a controller that may die.
type world struct {
	rng   *rand.Rand
	now   time.Duration
	wall  time.Time // at now 0
	queue simQueue
	seq   int
	quiet time.Duration // no faults from then on

	list    *List
	m       *Machine
	life    int // of the controller
	born    time.Duration
	changed time.Duration // the list
	state   []byte
	failing string        // what the registry answers
	wait    time.Duration // and for how long it does not want to be asked
	source  string        // why pushes fail at their source
	nodesOf map[string][]string
	command string                   // what the list command does: "", fails or is empty
	tags    map[string]digest.Digest // by Ref and platform
	size    map[digest.Digest]int64
	nodes   map[string]*simNode
	order   []*simNode
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

func (w *world) after(d time.Duration, do func()) {
	w.seq++
	heap.Push(&w.queue, simEvent{w.now + d, w.seq, do})
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

func (w *world) between(a, b time.Duration) time.Duration {
	return a + time.Duration(w.rng.Int64N(int64(b-a)))
}

func (w *world) clock() Now { return Now{w.now - w.born, w.wall.Add(w.now)} }

// run lets time pass until end.
func (w *world) run(end time.Duration) {
	for w.queue.Len() > 0 && w.queue[0].at <= end && w.check.wrong == "" {
		e := heap.Pop(&w.queue).(simEvent)
		w.now = e.at
		e.do()
	}
	w.now = end
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
		w.live(w.between(100*time.Millisecond, 2*time.Second), func() { w.step(w.lookup(a.Lookup)) })
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
		w.state = data
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
	t := Tag{Ref: l.Image.Ref, List: digest.FromString("list")}
	for _, p := range l.Platforms {
		d := w.tags[l.Image.Ref+p]
		t.List = digest.FromString(t.List.String() + d.String())
		t.Variants = append(t.Variants, Found{p, "name of " + l.Image.Ref, d, w.size[d]})
	}
	ev.Tags = []Tag{t}
	w.check.looked(w, ev)
	if l.Known[t.Ref] == t.List {
		ev.Tags = []Tag{{Ref: t.Ref, List: t.List}}
	}
	return ev
}

// ask answers for the nodes that are up soon, and for the others late.
func (w *world) ask(queries []*Query) {
	answer := func(up bool) func() {
		return func() {
			for _, q := range queries {
				n := w.nodes[q.Node]
				switch {
				case w.check.answered[q] || n.up != up && up:
				case up:
					w.check.answered[q] = true
					w.step(EvAnswer{Query: q, Answer: n.answer(w, q)})
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
		clear(n.wished)
		for _, wish := range q.Wishes {
			n.wished[wish.Digest] = true
		}
	}
	a := Answer{Room: n.room(), Images: make([]Holding, len(q.Images))}
	for i, question := range q.Images {
		h := &a.Images[i]
		h.Named = n.names[question.Name]
		if _, held := n.blobs[question.Digest]; !held {
			h.Lacks = w.size[question.Digest]
		}
		if n.foreign[question.Name] {
			h.Conflict = "belongs to another warmer"
		}
	}
	return a
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
		case n.foreign[p.Name]:
			r.Outcome, r.Why = Conflict, "belongs to another warmer"
		default:
			var ok bool
			if r.Needs, ok = n.store(w, p.Digest, p.bytes); ok {
				n.names[p.Name] = p.Digest
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
