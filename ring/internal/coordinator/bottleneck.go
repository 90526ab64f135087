package coordinator

import "github.com/dolly-img/dolly-img/ring/internal/wire"

// Bottleneck says what holds the transfer up, and names the node or the link when one of them is
// slower than the others. It is asked once a second, and names only who was it a second before, too: what is
// measured in one second on busy machines differs by more than that. Everybody above a slow node only
// waits to send, everybody below it only to receive: the first node that does not wait to send is what the
// chain waits for.
func (c *Machine) Bottleneck() (limit Limit, name string) {
	limit, who, name := c.lookForBottleneck()
	before := c.speeds.stoodOut
	c.speeds.standsOut(who)
	if who != before {
		return limit, ""
	}
	return limit, name
}

// lookForBottleneck also says which node stands out; 0 is none.
func (c *Machine) lookForBottleneck() (limit Limit, who int, name string) {
	// A node that is about to be called slow is it, also while those above are not held up yet.
	for _, i := range c.order {
		if n := &c.nodes[i]; n.pace.seen > 0 {
			rate, cause := c.capacity(i)
			return cause.limit, i, c.slowName(i, rate, cause)
		}
	}
	for _, i := range c.order {
		n := &c.nodes[i]
		if n.phase != phServing || n.pace.slow || n.progress.report.Wait == wire.WaitOut && !c.starved(i) {
			continue
		}
		if limit = c.waitsFor(i); limit == LimitSource || limit == LimitRate || limit == LimitUnknown {
			return limit, 0, ""
		}
		if rate, cause := c.capacity(i); cause.limit == limit && c.standsOut(i, rate, cause) {
			return limit, i, c.slowName(i, rate, cause)
		}
		return limit, 0, ""
	}
	return LimitUnknown, 0, ""
}

// waitsFor is what node i, for which all above it wait, waits for itself.
func (c *Machine) waitsFor(i int) Limit {
	server := c.nodes[0].progress.report.Wait
	switch n := &c.nodes[i]; {
	case c.starved(i), n.progress.report.Wait == wire.WaitCPU:
		return LimitProcessor
	case n.progress.report.Wait == wire.WaitDisk:
		return LimitDisk
	case n.progress.report.Wait == wire.WaitLimit:
		return LimitPolicy
	case n.progress.report.Wait != wire.WaitIn:
		return LimitUnknown
	case c.waitedFor(i):
		return LimitNetwork
	case n.feed.feeder == 0 && server == wire.WaitLimit:
		return LimitRate
	case n.feed.feeder == 0 && server == wire.WaitCPU:
		return LimitSource
	}
	return LimitUnknown
}

// standsOut says whether node i, which could carry rate, is slower than the others: it could carry
// less than half of their median, as for worth. A link is compared with links only: that of a node that gets
// less than it could take is not known to be better.
func (c *Machine) standsOut(i int, rate int64, cause limiter) bool {
	median, links := c.median(i)
	if rate <= 0 || 2*rate >= median || cause.isLink() && !links {
		return false
	}
	for j := 1; j < len(c.nodes); j++ {
		if n := &c.nodes[j]; j != i && n.pace.could > 0 && n.row.State != Failed {
			return true
		}
	}
	return false
}

// slowName is how a progress line names what is slow about node i.
func (c *Machine) slowName(i int, rate int64, cause limiter) string {
	if cause.isLink() {
		return cause.String() + ": " + megabytes(rate)
	}
	return c.nodes[i].name + ": " + cause.String() + " " + megabytes(rate)
}
