package coordinator

import (
	"slices"
	"time"
)

// reach is what the coordinator knows of the ways to a node from the others.
//
// While search is set, probes that lead to the node are under way, and no link into it is ordered: waits says
// that its NEED has come. found and cut are never the same node. only is never taken back while the node
// is served.
type reach struct {
	undialled int // links in a row that its feeder could not open
	search    bool
	since     time.Duration // when search was set
	waits     bool
	searches  int
	found     int       // the nearest node that reached it; 0: none is known
	cut       []cutFrom // those that could not
	only      bool      // only the server can feed it
	left      bool      // it failed, because the server feeds enough others already
}

type cutFrom struct {
	node int
	why  string
}

func (r *reach) isCut(from int) bool {
	return slices.ContainsFunc(r.cut, func(c cutFrom) bool { return c.node == from })
}

func (r *reach) note(from int, why string) {
	if !r.isCut(from) {
		r.cut = append(r.cut, cutFrom{from, why})
	}
	if r.found == from {
		r.found = 0
	}
}

// nearest is, of those that cannot reach node i, the one that was asked for right before it.
func (r *reach) nearest(i int) cutFrom {
	best := r.cut[0]
	for _, c := range r.cut[1:] {
		if c.node < i && (c.node > best.node || best.node > i) {
			best = c
		}
	}
	return best
}

// forget is for a node that is gone: that nobody reached it, or it nobody, was its own fault.
func (r *reach) forget(from int) {
	r.cut = slices.DeleteFunc(slices.Clone(r.cut), func(c cutFrom) bool { return c.node == from })
	if r.found == from {
		r.found = 0
	}
}

// begin is for probes that lead to the node from now on.
func (r *reach) begin(now time.Duration) {
	r.search, r.since, r.found = true, now, 0
	r.searches++
}

// end is for when nobody is asked any more.
func (r *reach) end() { r.search = false }

// wait is for a node that has said what it needs while others were asked.
func (r *reach) wait() { r.waits = true }

// anew is for a node that is asked anew what it needs.
func (r *reach) anew() { r.waits = false }

func (r *reach) foundBy(node int) { r.found = node }

// notDialled counts a link that its feeder could not open.
func (r *reach) notDialled() (inRow int) {
	r.undialled++
	return r.undialled
}

// otherFeeder has that count begin anew.
func (r *reach) otherFeeder() { r.undialled = 0 }

// serverOnly notes that no node reaches this one.
func (r *reach) serverOnly() { r.only = true }

// leave is for a node that no node reaches, and that the server does not feed.
func (r *reach) leave() { r.left = true }
