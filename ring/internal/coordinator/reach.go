package coordinator

import (
	"slices"
	"time"
)

// reach is what is known of the ways from the other nodes to a node.
//
// While search is true, probes that lead to the node are under way; while parked is true it waits for another
// search. search and parked are never both true, and while one of them is, no link into the node is ordered. found
// is never a node in cut. only is not taken back while the node is served.
type reach struct {
	// undialled counts the links in a row that the feeder could not open.
	undialled int
	// search says that others are asked whether they reach the node, for the searches-th time.
	search   bool
	searches int
	// parked says that no node reaches it, and that the server feeds enough others. again says that it is or
	// was parked, which happens once.
	parked, again bool
	// since is when search or parked became true.
	since time.Duration
	// waits says that the NEED of the node came while search or parked was true.
	waits bool
	// found is the nearest node that reached it; 0: none is known. cut are those that could not.
	found int
	cut   []cutFrom
	// only says that only the server can feed it.
	only bool
	// left says that it failed because the server feeds enough such nodes already.
	left bool
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

// nearest is, of the nodes that cannot reach node i, the one nearest before it in the order that was asked for.
func (r *reach) nearest(i int) cutFrom {
	best := r.cut[0]
	for _, c := range r.cut[1:] {
		if c.node < i && (c.node > best.node || best.node > i) {
			best = c
		}
	}
	return best
}

// forget drops what is known of the way from a node that is gone: it reached nobody because it was failing.
func (r *reach) forget(from int) {
	r.cut = slices.DeleteFunc(slices.Clone(r.cut), func(c cutFrom) bool { return c.node == from })
	if r.found == from {
		r.found = 0
	}
}

// begin notes that other nodes are probing the way to this node from now on.
func (r *reach) begin(now time.Duration) {
	r.search, r.parked, r.since, r.found = true, false, now, 0
	r.searches++
}

// end notes that nobody is asked any more.
func (r *reach) end() { r.search = false }

// wait notes that the node has said what it needs while others were asked.
func (r *reach) wait() { r.waits = true }

// anew notes that the node is asked anew what it needs.
func (r *reach) anew() { r.waits = false }

// foundBy notes the nearest node that reached it.
func (r *reach) foundBy(node int) {
	r.cut = slices.DeleteFunc(slices.Clone(r.cut), func(c cutFrom) bool { return c.node == node })
	r.found = node
}

// park makes the node wait for another search.
func (r *reach) park(now time.Duration) { r.parked, r.again, r.since = true, true, now }

// holds says whether no link into the node is ordered for now.
func (r *reach) holds() bool { return r.search || r.parked }

// notDialled counts a link that its feeder could not open.
func (r *reach) notDialled() (inRow int) {
	r.undialled++
	return r.undialled
}

// otherFeeder starts that count again.
func (r *reach) otherFeeder() { r.undialled = 0 }

// serverOnly notes that no node reaches this one.
func (r *reach) serverOnly() { r.only = true }

// leave notes that no node reaches this one, and that the server does not feed it.
func (r *reach) leave() { r.left = true }
