package coordinator

import "github.com/dolly-img/dolly-img/ring/internal/wire"

// pace is what a node could carry, and whether it is called slow because of that.
//
// A node that is slow stands at the end of the order and feeds nobody. rate and why tell of the last
// time it was called slow. seen counts only while slow is false. Of all nodes at most one has seen > 0.
type pace struct {
	could   int64 // bytes per second it could carry when it was last known
	carried int64 // of it the link into it, at its best while it was busy; a little less with each second
	burst   int64 // what passed over that link in moments, when it was mostly idle

	slow    bool  // it is served at the end of the order, and feeds nobody
	seen    int   // looks in a row that say so
	unsure  bool  // the last of them says so of whom it feeds
	rate    int64 // bytes per second because of which it was called slow
	why     Cause // why it was called slow
	cleared int   // times it was called slow and turned out not to be
	sends   int64 // bytes per second, where it was called slow because of what it sends
	slowed  int   // whom it feeds was called slow, because of the link from it; 0: nobody
}

// anew is for a node that gets another link, of which nothing is known.
func (p *pace) anew() { p.carried, p.burst = 0, 0 }

// measure keeps what the link into a node that gets so many bytes per second has carried: at its best, a
// little less with each second in which it was less, or in which the link did not show it, but not less than
// the node gets.
func (p *pace) measure(link wire.Sending, gets int64) {
	switch {
	case link.Rate > 1:
		p.carried = max(link.Rate, p.carried-p.carried/8)
	case p.carried > 0:
		p.carried = max(gets, p.carried-p.carried/32)
	}
	if link.Burst > 0 {
		p.burst = link.Burst
	}
}

// can notes what the node could carry.
func (p *pace) can(rate int64) { p.could = rate }

// pass is for a look in which the node was not the slowest.
func (p *pace) pass() { p.seen, p.unsure = 0, false }

// look is for a look in which it was, or in which whom it feeds was, which is not sure; it says whether
// there were enough of them.
func (p *pace) look(sure bool) (slow bool) {
	if p.unsure = !sure; sure || p.seen < timings.slowLooks-1 {
		p.seen++
	}
	return p.seen >= timings.slowLooks
}

// call is for a node that is called slow from now on.
func (p *pace) call(rate int64, why Cause) {
	p.slow, p.seen, p.rate, p.why = true, 0, rate, why
}

// chokes is for a node that is called slow because it sends no faster.
func (p *pace) chokes(rate int64) { p.sends = rate }

// clear is for a node that was called slow and is not.
func (p *pace) clear() {
	p.slow, p.sends = false, 0
	p.cleared++
}

// slowedNode notes whom this node feeds too slowly; 0: nobody.
func (p *pace) slowedNode(i int) { p.slowed = i }
