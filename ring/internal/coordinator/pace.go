package coordinator

import (
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// pace is what a node could carry, and whether it is called slow because of that. All rates are in bytes per
// second.
//
// A node that is slow stands at the end of the order and feeds nobody. rate and why tell of the last time it
// was called slow. seen grows only while slow is false, and no two nodes have seen > 0 at the same time.
type pace struct {
	// could is what the node could carry when that was last known; 0 is never.
	could int64
	// carried is what the link into it carried at its best while it was busy, a little less with each second.
	carried int64
	// burst is what passed over that link in moments, when it was mostly idle.
	burst int64

	// slow says that the node is served at the end of the order.
	slow bool
	// seen counts the looks in a row that found it slow.
	seen int
	// rate is what it could carry when it was called slow, why what is said of it, and since when that was. another says
	// that it may be otherwise with another feeder.
	rate    int64
	why     Cause
	since   time.Duration
	another bool
	// cleared counts how often it was called slow and turned out not to be.
	cleared int
	// sends is what it sends, where it was called slow because of that, else 0.
	sends int64
	// slowed is the node that was called slow because of the link from this one; 0 is none.
	slowed int
}

// anew forgets what the link into the node carried, because it gets another one.
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

// pass notes a look in which the node was not the slowest.
func (p *pace) pass() { p.seen = 0 }

// look notes a look in which the node was the slowest, or, when that is not sure, in which the node that it feeds
// was. It says whether there were enough such looks in a row; the last of them must be sure.
func (p *pace) look(sure bool) (slow bool) {
	if sure || p.seen < timings.slowLooks-1 {
		p.seen++
	}
	return p.seen >= timings.slowLooks
}

// call notes that the node is called slow from now on. another says that it may be otherwise with another feeder.
func (p *pace) call(now time.Duration, rate int64, why Cause, another bool) {
	p.slow, p.seen, p.rate, p.why, p.since, p.another = true, 0, rate, why, now, another
}

// chokes notes that the node is called slow because it sends no faster than rate.
func (p *pace) chokes(rate int64) { p.sends = rate }

// clear notes that the node was called slow and is not.
func (p *pace) clear() {
	p.slow, p.sends = false, 0
	p.cleared++
}

// slowedNode notes whom this node feeds too slowly; 0: nobody.
func (p *pace) slowedNode(i int) { p.slowed = i }
