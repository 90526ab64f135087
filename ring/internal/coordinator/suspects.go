package coordinator

import (
	"fmt"
	"slices"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// This file finds the link that changed bytes (PROTOCOL.md section 7). A node whose bytes differ from a mark falls back.
// If its feeder has the same wrong bytes, the link between the two is not to blame, because only the topmost such link
// is. So the node is fed anew once the server knows about its feeder.

func (c *Machine) fallback(ev EvFallback) {
	n, m := &c.nodes[ev.Node], ev.Msg
	if n.phase != phServing || m.Blob < 0 || m.Blob >= len(c.blobs) {
		return
	}
	if ev.Unsent || m.Good < 0 || m.Good > m.Offset {
		c.end(ev.Node, Failed, because(KindProtocol, "went back from a mark that it was not sent"))
		return
	}
	// If own is true, what the node claimed to hold was wrong. Nobody sent these bytes, so no link is to blame.
	own := n.holdings.owns(m.Blob, m.Good, m.Offset)
	if own {
		n.row.Skipped = max(0, n.row.Skipped-n.holdings.cut(m.Blob, m.Good, m.Offset))
	}
	// What it claimed of later blobs no longer counts, nor, when it goes back too often, its sets of leaves.
	n.row.Skipped = max(0, n.row.Skipped-n.holdings.drop(m.Blob, m.Good, n.blame.falls+1 >= wire.MaxMissed))
	if n.blame.fall(c.nextLink, m.Blob, m.Good) {
		n.row.Link = c.linkName(ev.Node)
		c.end(ev.Node, Failed, because(KindFalls, "went back to a mark %d times: bytes do not stay as they are sent", maxFalls))
		return
	}
	if n.blame.unclear() {
		n.tries.serverOnly()
	}
	c.excuse(ev.Node)
	// If late is true, the node hung up because of the mark, and the server heard first that the feeder's link broke.
	late := m.Link == n.tries.broke && m.Generation+1 == n.feed.gen && n.feed.state == feedAsked
	if late {
		n.tries.breaks(0)
		n.tries.takeBack()
		n.note, n.row.Link = Cause{}, ""
	} else if m.Link != n.feed.link || m.Generation != n.feed.gen {
		if n.feed.state == feedDone && n.blame.suspect == nil {
			c.relink(ev.Node)
		}
		return // the node has another feeder already, and will say what it needs
	}
	name := c.linkName(ev.Node)
	differs := fmt.Sprintf("%s differs from the source before byte %d", wire.Called(c.blobs, m.Blob), m.Offset)
	if own {
		c.event(ev.Node, Serving, because(KindMismatch, "what it held itself of %s", differs))
	} else {
		c.do(ActLink{Link: name, Reason: differs})
	}
	feeder, known := n.feed.feeder, n.feed.state != feedAsked || late
	n.feed.halt()
	if own || !known {
		c.relink(ev.Node)
		return
	}
	if !carried(n.feed.needs, m.Blob, m.Good) || c.spared(ev.Node, m) {
		// Some of these bytes came over an earlier link, so nobody can tell which link changed them. If that one's feeder
		// fell back itself, it was replaced, or has the right bytes by now.
		if n.blame.unclear() {
			n.tries.serverOnly()
		}
		c.relink(ev.Node)
		return
	}
	n.blame.suspects(&suspicion{feeder, name, m.Link, m.Blob, m.Offset, c.now})
	c.judgeSuspects()
}

// carried reports whether a link with these needs brought all bytes of a blob from off on.
func carried(needs [][2]int64, blob int, off int64) bool {
	for _, n := range needs {
		if n[0] == int64(blob) {
			return n[1] <= off
		}
	}
	return false
}

// spared reports whether the node said in its last NEED that it holds some of the bytes between its good ones and the mark
// that differs.
func (c *Machine) spared(i int, m *wire.Fallback) bool {
	set := c.setOf(c.nodes[i].feed.leaves, m.Blob)
	return set.Any(m.Good, m.Offset)
}

// judgeSuspects blames or clears the suspected links, as far as the server knows enough by now.
func (c *Machine) judgeSuspects() {
	for _, i := range slices.Clone(c.order) { // blaming moves nodes
		s := c.nodes[i].blame.suspect
		if s == nil {
			continue
		}
		f := &c.nodes[s.feeder]
		switch {
		case s.feeder != 0 && !f.contact.alive, s.feeder != 0 && f.blame.suspect != nil && !after(f.blame.suspect.blob, f.blame.suspect.off, s.blob, s.off):
			c.clear(i) // the fault is further up, or its node died
		case s.feeder != 0 && s.id <= f.blame.fell.link && after(s.blob, s.off, f.blame.fell.blob, f.blame.fell.good):
			c.clear(i) // the fault was further up, and the feeder has got the right bytes since
		case s.feeder == 0, c.passed(s.feeder, s.blob, s.off), c.now-s.since >= c.patience(s.feeder):
			c.blame(s.feeder, i, s.link)
		}
	}
}

// patience is how long a feeder may take to pass a mark, or to fall back from it. The time is short only for a feeder
// that waits for its own feed, because it has hashed all that it has. A feeder with a slow disk has not, and must not be
// blamed for that. What a feeder waits for does not show its disk once its receiver has hung up, or when it is about to
// fall back. A feeder that has received everything says that it waits for more, even while its disk lags behind.
func (c *Machine) patience(feeder int) time.Duration {
	f := &c.nodes[feeder]
	if c.now-f.progress.told >= 2*ReportEvery {
		return timings.patient // its last report is old, so the node may stand still
	}
	if w := f.progress.report.Wait; f.feed.state == feedUp && (w == wire.WaitIn || w == wire.WaitLimit) {
		return timings.blame
	}
	return timings.patient
}

// after reports whether position A comes after position B in the order in which bytes travel.
func after(blobA int, offA int64, blobB int, offB int64) bool {
	return blobA > blobB || blobA == blobB && offA > offB
}

// passed reports whether the bytes of node i were right up to a mark.
func (c *Machine) passed(i, blob int, off int64) bool {
	n := &c.nodes[i]
	return n.phase >= phVerified || n.holdings.held[blob] >= 0 || !after(blob, off, n.progress.report.Blob, n.progress.report.Good)
}

// clear drops the suspicion about the link into i, and gives i a new one.
func (c *Machine) clear(i int) {
	c.nodes[i].blame.unsuspect()
	c.relink(i)
}

// blame holds a link against both its ends. From then on its feeder feeds nobody.
func (c *Machine) blame(feeder, i int, link string) {
	c.do(ActLink{Link: link, Reason: "blamed: it changed bytes"})
	c.nodes[i].blame.unsuspect()
	why := changed(link)
	for _, ends := range [][2]int{{feeder, i}, {i, feeder}} {
		k, other := ends[0], ends[1]
		if k == 0 {
			continue
		}
		n := &c.nodes[k]
		n.blame.hold(other)
		if n.phase < phFinal {
			n.note, n.row.Link = why, link
		}
	}
	if feeder != 0 {
		f := &c.nodes[feeder]
		f.blame.ban()
		switch {
		case f.blame.often() && f.phase < phCommitting:
			f.note = Cause{}
			c.end(feeder, Failed, why.twice())
		default:
			c.toTail(feeder)
		}
	}
	n := &c.nodes[i]
	if n.blame.often() {
		n.note = Cause{}
		c.end(i, Failed, why.twice())
		return
	}
	if n.phase == phServing && n.feed.state == feedNone {
		c.relink(i)
	}
}
