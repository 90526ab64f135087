//go:build !race

package coordinator

import (
	"hash/maphash"
	"slices"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// One node of the explorer's world may lie: it begins to do one of xLies for good, or says what is not so once. It does
// so before the source is read, and whenever everybody waits; what it says once, at any moment. Where somebody may lie, time
// passes until something happens, everybody reports what TCP would know, and the window of a node is one frame: it takes
// the next one only when those that it feeds have taken the last.

// xLiar is what the liar does by now.
type xLiar struct {
	does    xLie
	claimed int64 // what it has claimed of received, compared and stored bytes
	got     int   // the most frames that it ever had
	acked   []xAcked
}

// xAcked is how many frames were taken over a link, which may have ended.
type xAcked struct {
	feeder int
	link   uint32
	frames int
}

type xLie int

const (
	lieNoNeed xLie = 1 << iota
	lieNoVerified
	lieNoLink
	lieDeaf
	lieMute
	lieWaitsOut
	lieClaims
	lieIdle
)

var xLies = []struct {
	lie  xLie
	what string
}{
	{lieNoNeed, "does not say what it needs"},
	{lieNoVerified, "does not say that it has everything"},
	{lieNoLink, "says nothing of the links that it feeds"},
	{lieDeaf, "reads nothing"},
	{lieMute, "sends nothing"},
	{lieWaitsOut, "says that it waits for those that it feeds"},
	{lieClaims, "claims to get on as slowly as it may"},
	{lieIdle, "says that it has nothing to send"},
}

func (w *world) lies(i int, how xLie) bool {
	return w.may.lies > 0 && i == w.may.liar && w.liar.does&how != 0
}

// mayLie lists the lies that may be told now. quiet says that everybody waits.
func (w *world) mayLie(quiet bool, add addMove) {
	i := w.may.liar
	if w.left.lies == 0 || w.nodes[i].m == nil || !w.nodes[i].ctrl {
		return
	}
	for _, l := range xLies {
		if (quiet || w.read == 0) && !w.lies(i, l.lie) {
			add(func(w *world) { w.left.lies--; w.liar.does |= l.lie }, "n%d lies: it %s", i, l.what)
		}
	}
	say := func(m wire.Message, what string) {
		add(func(w *world) {
			w.left.lies--
			ev, _ := Heard(i, m)
			n := w.own(i)
			n.out = append(slices.Clone(n.out), onTheWay(ev))
		}, "n%d lies: it says %s", i, what)
	}
	if f := &w.c.nodes[i].feed; w.c.nodes[i].phase == phServing && f.state == feedUp {
		say(&wire.Link{Link: f.link, Generation: f.gen, State: wire.LinkDone}, "that it was sent everything")
		if w.read > 0 {
			say(&wire.Fallback{Link: f.link, Generation: f.gen, Offset: xFrame}, "that it was sent other bytes")
		}
	}
}

// keepsToItself says whether i does not say a message that it should.
func (w *world) keepsToItself(i int, m wire.Message) bool {
	switch m.(type) {
	case *wire.Need:
		return w.lies(i, lieNoNeed)
	case *wire.Verified:
		return w.lies(i, lieNoVerified)
	case *wire.Link:
		return w.lies(i, lieNoLink)
	}
	return false
}

// stands says whether a link that is up carries nothing now: an end of it lies, or the window of its receiver is full.
func (w *world) stands(l *xLink) bool {
	return w.lies(l.feeder, lieMute) || w.lies(l.node, lieDeaf) || w.full(l)
}

// full says whether the receiver of a link waits for those that it feeds.
func (w *world) full(l *xLink) bool {
	return w.may.lies > 0 && l.state == "up" && l.pos < xFrames && slices.ContainsFunc(w.links, func(o *xLink) bool {
		return o.feeder == l.node && o.state == "up" && !o.lag && o.pos < l.pos
	})
}

// took notes that a frame was taken over a link.
func (w *world) took(l *xLink) {
	if w.may.lies == 0 {
		return
	}
	if l.node == w.may.liar {
		w.liar.got = max(w.liar.got, l.pos)
	}
	w.liar.acked = slices.Clone(w.liar.acked)
	k := slices.IndexFunc(w.liar.acked, func(a xAcked) bool { return a.feeder == l.feeder && a.link == l.link })
	if k < 0 {
		k = len(w.liar.acked)
		w.liar.acked = append(w.liar.acked, xAcked{l.feeder, l.link, 0})
	}
	w.liar.acked[k].frames++
}

// reportAll has the server and all nodes report.
func (w *world) reportAll() {
	for i := range w.nodes {
		if i > 0 && (w.nodes[i].m == nil || !w.nodes[i].ctrl) {
			continue
		}
		r := wire.Report{}
		if i > 0 {
			r = *w.nodes[i].m.Report()
		}
		if r.Links = w.sendings(i); i > 0 && len(w.nodes[i].data) < xFrames {
			r.Wait = wire.WaitIn
		}
		if w.lies(i, lieWaitsOut) || slices.ContainsFunc(w.links, func(l *xLink) bool { return l.node == i && l.pos < w.has(l.feeder) && w.full(l) }) {
			r.Wait = wire.WaitOut
		}
		if w.lies(i, lieClaims) {
			w.liar.claimed += 17 << 10
			r.Received = w.liar.claimed
			r.Marked = max(0, r.Received-w.blob.Size)
			r.Durable = max(0, r.Marked-w.blob.Size)
		}
		w.chain(EvReport{i, r})
	}
}

// sendings are the links that i feeds, and those that it has fed.
func (w *world) sendings(i int) (all []wire.Sending) {
	for _, l := range w.links {
		if l.feeder == i && l.state == "up" {
			idle := l.pos >= w.has(i)
			all = append(all, wire.Sending{Link: l.link, Idle: idle || w.lies(i, lieIdle), Held: !idle && !w.lies(i, lieMute)})
		}
	}
	for _, a := range w.liar.acked {
		if a.feeder != i {
			continue
		}
		k := slices.IndexFunc(all, func(s wire.Sending) bool { return s.Link == a.link })
		if k < 0 {
			k, all = len(all), append(all, wire.Sending{Link: a.link, Idle: true, Ended: true})
		}
		all[k].Acked = int64(a.frames) * xFrame
	}
	return all
}

// pass is time in which nothing else happens, until something does. By PROTOCOL.md section 9 the honest nodes have
// everything after T × 2 + B ÷ R, and the transfer ends 10 min later. Half a minute more is for what a loss takes.
func (w *world) pass() {
	for !w.over && w.err == nil {
		bytes := 3*int64(w.liar.got)*xFrame + 240<<10
		limit := 150*time.Second + time.Duration(bytes/leastRate)*time.Second
		for i := 1; i < len(w.nodes); i++ {
			if i != w.may.liar && w.now > limit && w.c.nodes[i].phase < phVerified {
				w.fail("n%d, which nothing happened to, has not everything after %v", i, w.now)
			}
		}
		if w.now > limit+10*time.Minute {
			w.fail("the transfer has not ended after %v: %v", w.now, w.rows())
		}
		if w.tick(); w.err == nil {
			if all, _ := w.active(); len(all) > 0 {
				return
			}
		}
	}
}

// liarPrint is of what reports were believed, which counts only where somebody lies.
func (w *world) liarPrint(seed maphash.Seed, sum uint64) uint64 {
	if w.may.lies == 0 {
		return sum
	}
	for i := range w.c.nodes {
		n := &w.c.nodes[i]
		p := &n.progress
		sum = maphash.Comparable(seed, struct {
			sum   uint64
			taken taken
			has   [7]int64
			at    [6]time.Duration
		}{sum, n.taken, [7]int64{p.has, p.said, p.hadThen, p.saidThen, p.small, p.durable, int64(len(p.links))},
			[6]time.Duration{p.moved, p.told, p.saidAt, p.busy, p.owes, n.contact.asked}})
	}
	return sum
}
