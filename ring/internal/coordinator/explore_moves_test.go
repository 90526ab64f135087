//go:build !race

package coordinator

import (
	"cmp"
	"slices"

	"github.com/dolly-img/dolly-img/ring/internal/member"
	"github.com/dolly-img/dolly-img/ring/internal/wire"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// What can happen in the explorer's world, one move at a time.

type addMove = func(do func(w *world), format string, args ...any)

// movesOf are those of a node: messages arrive, and its own work goes on.
func (w *world) movesOf(i int, add addMove) {
	n := w.nodes[i]
	if n.gone {
		add(func(w *world) {
			w.own(i).gone = false
			w.chain(EvControlLost{i, false, "connection lost"})
		}, "the server sees the control connection of n%d end", i)
	}
	if !n.up {
		return
	}
	if len(n.in) > 0 {
		add(func(w *world) { w.arrive(i) }, "n%d gets %T", i, n.in[0].m)
	}
	if len(n.out) > 0 {
		add(func(w *world) { w.hear(i) }, "the server gets %T of n%d", n.out[0].m, i)
	}
	if n.comparing && n.own <= len(n.old) && w.may.stuck != i {
		add(func(w *world) { w.compareOwn(i) }, "n%d compares leaf %d", i, n.own)
	}
	for k, job := range n.jobs {
		if job == "published" || job == "reset" {
			add(func(w *world) { w.work(i, k) }, "n%d: %s", i, job)
		}
	}
}

// ownWork are moves that are made before all others, and only one of them is tried: whatever
// else could come before neither changes what they do nor sees it, so that every other order
// leads to the same states. A crash forgets what they did.
func (w *world) ownWork(i int, add addMove) {
	n := w.nodes[i]
	if len(n.in) > 0 && n.up && w.quietly(i, n.in[0].m) {
		add(func(w *world) { w.arrive(i) }, "n%d gets %T", i, n.in[0].m)
	}
	if len(n.out) > 0 && w.unheard(n.out[0].m) {
		add(func(w *world) { w.hear(i) }, "the server gets %T of n%d", n.out[0].m, i)
	}
	if n.m == nil || n.m.Phase() < member.Started {
		return
	}
	resets := slices.Contains(n.jobs, "reset")
	if n.hashed < len(n.data) && !resets {
		add(func(w *world) {
			n := w.own(i)
			n.hashed++
			w.node(i, member.EvSum{Blob: 0, Offset: int64(n.hashed) * xFrame, Sum: w.hash(n), End: false})
		}, "n%d hashes byte %d", i, n.hashed)
	}
	if n.hashed == xFrames && !n.ended && !resets {
		add(func(w *world) {
			n := w.own(i)
			n.ended = true
			w.node(i, member.EvSum{Blob: 0, Offset: w.blob.Size, Sum: w.rootOf(n.data), End: true})
		}, "n%d has hashed all", i)
	}
	for k, job := range n.jobs {
		if job == "durable" || job == "prepared" {
			add(func(w *world) { w.work(i, k) }, "n%d: %s", i, job)
		}
	}
}

// quietly says whether to take a message changes nothing for others, nor what they can do to
// i. When control connections may break it matters what arrived before.
func (w *world) quietly(i int, m any) bool {
	switch m := m.(type) {
	case *wire.Marks, *wire.Offer:
		return true
	case *wire.Start:
		return !w.nodes[i].comparing
	case *wire.Commit: // to publish is a move of its own
		return w.may.cuts == 0
	case *wire.Dial: // so is to dial; but who falls back sees which links there are
		return w.may.cuts == 0 && w.may.flips == 0
	case *wire.Undial:
		return !slices.ContainsFunc(w.links, func(l *xLink) bool { return l.feeder == i && l.link == m.Link })
	case *wire.Feed: // of a node that nobody feeds, nor will before it says what it needs
		return w.may.cuts == 0 && !slices.Contains(w.nodes[i].jobs, "reset") &&
			!slices.ContainsFunc(w.links, func(l *xLink) bool { return l.node == i }) &&
			!slices.ContainsFunc(w.nodes[1:], func(n *xNode) bool { return slices.ContainsFunc(n.in, dials(i)) })
	}
	return false
}

// unheard says whether the coordinator does nothing with an event, now or later.
func (w *world) unheard(ev any) bool {
	switch ev := ev.(type) {
	case EvReport:
		return true
	case EvNeed:
		return w.c.nodes[ev.Node].feed.gen != ev.Generation
	case EvLink:
		i := slices.IndexFunc(w.c.nodes, func(n node) bool { return n.feed.link == ev.Link })
		return i < 0 || !w.heeded(i, ev.Generation) || w.may.cuts == 0 && ev.State == wire.LinkUp
	}
	return false
}

// heeded says whether the coordinator does anything when the link of a generation into i
// ends. Once it does not it never will, but for a node that resumes.
func (w *world) heeded(i int, gen uint32) bool {
	n := &w.c.nodes[i]
	open := n.feed.state == feedDialled || n.feed.state == feedUp || n.feed.state == feedDone && n.phase == phServing
	return w.may.cuts > 0 || gen == n.feed.gen && open
}

// hear is what the server does with a message of a node.
func (w *world) hear(i int) {
	n := w.own(i)
	ev := n.out[0].m
	n.out = slices.Clone(n.out[1:])
	if f, ok := ev.(EvFallback); ok && w.compares() && w.may.flips == 0 {
		w.fail("n%d goes back before byte %d, and has compared what it held", i, f.Msg.Offset)
	}
	w.chain(ev)
}

func (w *world) arrive(i int) {
	n := w.own(i)
	m := n.in[0].m
	n.in = slices.Clone(n.in[1:])
	if _, offer := m.(*wire.Offer); offer {
		if n.m == nil {
			n.m, n.result, n.newest = member.New([]v1.Descriptor{w.blob}, w.each()), "", 0
			sets, leaves := w.claims(n)
			n.m.Step(member.EvHeld{Held: []int64{0}, Sets: sets})
			n.out = append(n.out, onTheWay(EvAnswer{i, []int64{0}, -1, true, false, wire.CodeNone, "", leaves, nil}))
			w.fill(i)
		}
		return
	}
	if n.m == nil {
		return
	}
	if f, ok := m.(*wire.Feed); ok {
		n.newest = max(n.newest, f.Generation)
	}
	w.node(i, member.EvMsg{Msg: m.(wire.Message)})
	if u, ok := m.(*wire.Undial); ok && n.ctrl {
		w.hasRead(i, EvUndialled{i, u.Link})
	}
}

// twin has the first node answer to the name of the last one, too.
func (w *world) twin() {
	w.left.twins--
	n := w.own(1)
	n.touched = true
	n.barred = n.barred || w.c.nodes[1].phase < phCommitting
	w.chain(EvWelcome{len(w.nodes) - 1, wire.ID{n.instance}, wire.StateRunning, "", "", wire.Version, false})
}

// work does a job that a member ordered.
func (w *world) work(i, k int) {
	n := w.own(i)
	job := n.jobs[k]
	n.jobs = slices.Delete(slices.Clone(n.jobs), k, k+1)
	switch job {
	case "durable":
		w.node(i, member.EvDurable{Blob: 0})
	case "prepared":
		w.node(i, member.EvPrepared{})
	case "published":
		if n.barred {
			w.fail("n%d publishes, though another name of it was known before COMMIT", i)
		}
		n.showing = slices.Clone(n.data)
		if w.node(i, member.EvPublished{}); n.result != "" { // released meanwhile
			n.result = string(Committed)
			w.drop(i)
		}
	case "reset":
		n.data = slices.Clone(n.data[:n.m.Position(0).Good/xFrame])
		n.hashed, n.ended, n.filled = len(n.data), false, n.filled[:min(len(n.filled), len(n.data))]
		for _, l := range w.links {
			if !l.halted || l.feeder != i {
				continue
			}
			switch l.state {
			case "ordered":
				l.state = "closed"
			case "up":
				l.state, l.told = "broken", true
			default:
				continue
			}
			w.node(i, member.EvLink{Link: l.link, Generation: l.gen, State: wire.LinkDown, Code: wire.CodeMismatch, Reason: "the feeder went back"})
		}
		w.node(i, member.EvReset{})
	}
}

// ownEnd is how a link ends of which nobody takes notice any more.
func (w *world) ownEnd(k int, l *xLink, add addMove) {
	if (l.state == "broken" || l.state == "up" && l.pos == xFrames) && !w.heeded(l.node, l.gen) {
		w.movesOn(k, l, add)
	}
}

// movesOn are those on a link.
func (w *world) movesOn(k int, l *xLink, add addMove) {
	alive := l.feeder == 0 || w.nodes[l.feeder].m != nil
	// A link that is ordered meanwhile sends nothing that is about to be dropped.
	waits := alive && l.feeder != 0 && !l.halted && slices.Contains(w.nodes[l.feeder].jobs, "reset")
	switch l.state {
	case "ordered":
		if alive && !l.halted {
			add(func(w *world) { w.dial(w.links[k]) }, "%d dials n%d, generation %d", l.feeder, l.node, l.gen)
		}
	case "up":
		switch {
		case waits, w.stands(l):
		case w.sendable(l):
			add(func(w *world) { w.frame(w.links[k], 0) }, "%d sends byte %d to n%d, generation %d", l.feeder, l.pos, l.node, l.gen)
			if l.feeder != 0 && w.left.flips > 0 {
				add(func(w *world) { w.left.flips--; w.frame(w.links[k], 1) }, "%d sends byte %d to n%d, changed", l.feeder, l.pos, l.node)
			}
		case l.pos == xFrames:
			add(func(w *world) {
				l := w.links[k]
				l.state = "closed"
				w.feedEnd(l, true)
			}, "%d has sent n%d everything", l.feeder, l.node)
		}
	case "last":
		add(func(w *world) { w.links[k].state = "broken" }, "the feed of n%d from %d is closed", l.node, l.feeder)
		if w.sendable(l) && w.nodes[l.node].m != nil {
			add(func(w *world) {
				w.frame(w.links[k], 0)
				w.links[k].state = "broken"
			}, "%d has sent byte %d to n%d, generation %d, before it was closed", l.feeder, l.pos, l.node, l.gen)
		}
	case "broken":
		if !l.seen {
			add(func(w *world) {
				l := w.links[k]
				l.seen = true
				w.feedEnd(l, false)
				l.settle(w)
			}, "n%d sees its feed from %d end, generation %d", l.node, l.feeder, l.gen)
		}
		if !l.told && alive {
			add(func(w *world) {
				l := w.links[k]
				l.told = true
				w.report(l, wire.LinkDown, wire.CodeNetwork)
				l.settle(w)
			}, "%d sees its link to n%d end, generation %d", l.feeder, l.node, l.gen)
		}
	}
}

// has is how many bytes a feeder could send.
func (w *world) has(feeder int) int {
	if feeder == 0 {
		return w.read
	}
	return len(w.nodes[feeder].data)
}

// settle forgets a link whose end everybody knows.
func (l *xLink) settle(w *world) {
	if l.seen && (l.told || l.feeder != 0 && w.nodes[l.feeder].m == nil) {
		l.state = "closed"
	}
}

func (w *world) dial(l *xLink) {
	if w.nodes[l.node].m == nil || w.walled(l.feeder, l.node) {
		l.state = "closed"
		w.report(l, wire.LinkDown, wire.CodeNetwork)
		return
	}
	if _, ok := w.node(l.node, member.EvOpen{Link: l.link, Generation: l.gen})[0].(member.ActAccept); !ok {
		l.state = "closed"
		w.report(l, wire.LinkDown, wire.CodeAuth)
		return
	}
	l.state = "up"
	w.report(l, wire.LinkUp, wire.CodeNone)
}

// frame carries one byte: value 0 as the feeder has it, 1 changed.
func (w *world) frame(l *xLink, changed byte) {
	value := changed
	if l.feeder != 0 {
		value |= w.nodes[l.feeder].data[l.pos]
	}
	if w.nodes[l.node].m == nil {
		l.state = "broken"
		return
	}
	n := w.own(l.node)
	w.checkSpared(l)
	if _, ok := w.node(l.node, member.EvFrame{Generation: l.gen, Blob: 0, Offset: int64(l.pos) * xFrame, Length: xFrame})[0].(member.ActAccept); !ok {
		l.state, l.seen = "broken", true
		w.feedEnd(l, false)
		return
	}
	if l.gen < n.newest {
		w.fail("n%d takes a byte from generation %d, it was told of %d", l.node, l.gen, n.newest)
	}
	n.data = append(slices.Clone(n.data), value)
	w.fill(l.node)
	for l.pos++; l.pos < xFrames && l.skips>>l.pos&1 == 1; {
		l.pos++
	}
	w.took(l)
}

func (w *world) feedEnd(l *xLink, fin bool) {
	if w.nodes[l.node].m != nil {
		code := wire.CodeNetwork
		if fin {
			code = wire.CodeNone
		}
		w.node(l.node, member.EvFeedEnd{Link: l.link, Generation: l.gen, Fin: fin, Code: code, Reason: "connection lost"})
	}
}

// report is the feeder's about its link.
func (w *world) report(l *xLink, state string, code wire.Code) {
	if l.feeder == 0 {
		w.chain(EvLink{0, l.link, l.gen, state, code, "connection lost"})
	} else if w.nodes[l.feeder].m != nil {
		w.node(l.feeder, member.EvLink{Link: l.link, Generation: l.gen, State: state, Code: code, Reason: "connection lost"})
	}
}

// readOn reads a byte of the source and sends its mark to those who lack it.
func (w *world) readOn() {
	w.read++
	if w.again > 0 {
		return // the marks are there
	}
	for i := 1; i < len(w.nodes); i++ {
		if n := &w.c.nodes[i]; n.contact.alive && n.holdings.lacks && n.phase == phServing {
			w.send(i, w.marks(w.read-1))
		}
	}
}

func (w *world) crash(i int) {
	w.left.crashes--
	n := w.own(i)
	w.drop(i)
	n.gone = n.gone || n.ctrl
	n.up, n.ctrl, n.in, n.out, n.result, n.touched = false, false, nil, nil, "", true
}

// ask dials a node for its state, as sender.resume and sender.redial do.
func (w *world) ask(k int) {
	a := w.asks[k]
	w.asks = slices.Delete(slices.Clone(w.asks), k, k+1)
	n := w.own(a.node)
	if !n.up {
		w.chain(EvResumed{Node: a.node, Committed: a.committed, Cause: Cause{Kind: KindContact, Text: "refused"}})
		return
	}
	n.ctrl, n.gone, n.in, n.out = true, false, nil, nil
	state := cmp.Or(n.result, wire.StateUnknown)
	if n.m != nil {
		state = wire.StateRunning
	}
	id := wire.ID{n.instance}
	if a.redial {
		w.chain(EvWelcome{a.node, id, state, "", "", wire.Version, false})
	} else {
		w.chain(EvResumed{a.node, a.committed, id, state, w.digest().String(), Cause{}})
	}
	if n.m != nil {
		w.node(a.node, member.EvResume{})
	}
	if !w.c.nodes[a.node].contact.alive {
		n.ctrl = false
	}
}
