package coordinator

import "github.com/dolly-img/dolly-img/ring/internal/wire"

// outlier is the node that is slower than the others and that the others wait for. There is one judgement of
// it for each look, and two that ask for it: Bottleneck names the outlier in the progress line, and judgeSpeed
// calls it slow when moving it helps.
//
// All rates are in bytes per second. The zero outlier is nobody.
type outlier struct {
	who    int
	rate   int64   // what it could carry
	median int64   // what the others could carry
	cause  limiter // what limits it
	// unsure says that this look found only the node that it feeds, and the look before found itself.
	unsure bool
	// again says that it was the outlier in the look before as well.
	again bool
}

// findOutlier looks for the outlier: of the nodes that others wait for, the one that could carry least, when that
// is less than half of what the others could. When a link limits it, the fault may lie with its feeder.
func (c *Machine) findOutlier() outlier {
	o := c.slowest()
	o.median, _ = c.median(o.who)
	if o.who == 0 || !c.hasPeer(o.who) || !c.standsOut(o) {
		return outlier{}
	}
	if o.cause.isLink() {
		return c.sameCable(o)
	}
	return o
}

// slowest is the node that could carry least of those that others wait for.
func (c *Machine) slowest() (o outlier) {
	for _, i := range c.order {
		if !c.competes(i) || c.nodes[i].pace.cleared >= maxCleared || !c.holdsUp(i) {
			continue
		}
		if rate, why := c.capacity(i); rate > 0 && (o.who == 0 || rate < o.rate) {
			o.who, o.rate, o.cause = i, rate, why
		}
	}
	return o
}

// competes says whether node i is served among the others, and not behind them.
func (c *Machine) competes(i int) bool {
	n := &c.nodes[i]
	return n.phase == phServing && n.contact.alive && !n.pace.slow
}

// holdsUp says whether others wait for i.
func (c *Machine) holdsUp(i int) bool { return c.nodes[i].feed.state == feedUp && c.waitedFor(i) }

// hasPeer says whether i is not alone: another node is served, or has everything.
func (c *Machine) hasPeer(i int) bool {
	for j := 1; j < len(c.nodes); j++ {
		if n := &c.nodes[j]; j != i && (c.competes(j) || n.phase >= phVerified && n.row.State != Failed) {
			return true
		}
	}
	return false
}

// standsOut says whether a node could carry less than half of what the others could. A link from the server is
// not compared once all its links are known to be slow.
func (c *Machine) standsOut(o outlier) bool {
	fromServer := o.cause.isLink() && c.nodes[o.who].feed.feeder == 0
	return 2*o.rate < o.median && !(fromServer && c.speeds.serverSlow)
}

// sameCable says which node a slow link into o.who speaks against. A bad cable slows the links at both ends of
// the node it belongs to, and chance decides which of them measures less. So does a processor that has little
// time for a node. Therefore the feeder is the outlier when the link into it is less than 1.5 times as fast; if
// that link does not stand out, nobody is.
//
// The feeder is the outlier once more when the look before was sure of it.
func (c *Machine) sameCable(o outlier) outlier {
	f := c.nodes[o.who].feed.feeder
	if f == 0 {
		return o
	}
	if rate, why := c.capacity(f); c.competes(f) && why.isLink() && 2*rate < 3*o.rate && c.holdsUp(f) {
		o.who, o.rate, o.cause = f, rate, why
		if !c.standsOut(o) {
			return outlier{}
		}
		return o
	}
	if last := c.speeds.outlier; last.who == f && !last.unsure {
		last.unsure = true
		return last
	}
	return o
}

// Bottleneck says what holds the transfer up. name is the outlier, with what limits it and at which rate. It is
// "" unless two looks in a row found the same one: what busy machines measure in one second differs by more than
// that. It stays named for a look after it was called slow: the progress line asks more seldom than looks are taken,
// and would else name nobody before it tells the verdict.
//
// The two questions differ. A transfer always waits for something, also when all nodes are alike; then Bottleneck
// says what, and names nobody. And an outlier that was named is called slow only when moving it helps.
func (c *Machine) Bottleneck() (limit Limit, name string) {
	if o := c.speeds.outlier; o.again && c.nodes[o.who].phase == phServing {
		return o.cause.limit, c.outlierName(o)
	}
	// Everybody above a slow node only waits to send, and everybody below it only to receive. So the chain waits
	// for the first node that does not wait to send.
	for _, i := range c.order {
		n := &c.nodes[i]
		if n.phase == phServing && !n.pace.slow && (n.progress.report.Wait != wire.WaitOut || c.starved(i)) {
			return c.waitsFor(i), ""
		}
	}
	return LimitUnknown, ""
}

// waitsFor is what node i, for which all above it wait, waits for itself.
func (c *Machine) waitsFor(i int) Limit {
	server := c.nodes[0].progress.report.Wait
	switch n := &c.nodes[i]; {
	case c.starved(i):
		return LimitProcessor
	case n.progress.report.Wait == wire.WaitCPU:
		return c.processor(i)
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
	case n.feed.feeder == 0 && server == wire.WaitCPU && c.processor(0) == LimitHash:
		return LimitHash
	case n.feed.feeder == 0 && server == wire.WaitCPU:
		return LimitSource
	}
	return LimitUnknown
}

// outlierName is how a progress line names the outlier and what is slow about it.
func (c *Machine) outlierName(o outlier) string {
	if o.cause.isLink() {
		return o.cause.String() + ": " + megabytes(o.rate)
	}
	return c.nodes[o.who].name + ": " + o.cause.String() + " " + megabytes(o.rate)
}
