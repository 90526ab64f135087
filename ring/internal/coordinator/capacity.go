package coordinator

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// What each node could carry, as its own measurements and those of its feeder tell.

// speeds is what the coordinator knows of speed that no single node has.
type speeds struct {
	judged     time.Duration // when slow nodes were last looked for
	outlier    outlier       // who was slower than the others then
	serverSlow bool          // its links are, to whomever
	most       int64         // bytes per second that several feeders send at most; 0 is unknown
}

// begin notes when slow nodes are looked for.
func (s *speeds) begin(now time.Duration) { s.judged = now }

// look notes the outlier of a look; the zero outlier is nobody.
func (s *speeds) look(o outlier) {
	o.again = o.who != 0 && o.who == s.outlier.who
	s.outlier = o
}

func (s *speeds) serverIsSlow() { s.serverSlow = true }

func (s *speeds) share(most int64) { s.most = most }

// measure keeps what the links into those that are served have carried: at their best, a little less
// with each second in which it was less, or in which they did not show it, but not less than they do.
func (c *Machine) measure() {
	for _, i := range c.order {
		n := &c.nodes[i]
		if n.phase != phServing || !n.contact.alive {
			continue
		}
		l, _ := c.linkInto(i)
		n.pace.measure(l, n.progress.rate)
	}
	most, _ := c.busiest(0)
	for i := 1; i < len(c.nodes); i++ {
		if could := c.could(i, most); could > 0 {
			c.nodes[i].pace.can(could)
		}
	}
}

// busiest is the median of what links carried that were busy, without those into i and slow nodes; of an even number the
// higher one. known is whether there were some: one of them may be as slow as i, so there must be two. Else it is what
// several feeders send at most.
func (c *Machine) busiest(i int) (most int64, known bool) {
	var carried []int64
	for j := range c.nodes {
		if n := &c.nodes[j]; j != i && !n.pace.slow && n.pace.carried > 0 {
			carried = append(carried, n.pace.carried)
		}
	}
	switch {
	case len(carried) > 1:
		slices.Sort(carried)
		return carried[len(carried)/2], true
	case c.speeds.most > 0:
		return c.speeds.most, false
	}
	return math.MaxInt64, false
}

// could is what a node that is served could carry, 0 if that is unknown. What passed in a moment over a link that is
// mostly idle is no proof that it could go on like this: a shaper lets as much through as it has saved up. It counts for no
// more than most.
func (c *Machine) could(i int, most int64) int64 {
	n := &c.nodes[i]
	if n.pace.slow || n.phase != phServing || !n.contact.alive {
		return 0
	}
	link := n.pace.carried
	if link == 0 {
		link = min(n.pace.burst, max(most, n.progress.rate))
	}
	rate, _ := c.limits(i, link)
	return rate
}

// median is what the server and the nodes but i could carry, as far as it is known; of an
// even number the lower one. Who has everything is compared with, too. checked is whether it is known what links carried
// that were busy.
func (c *Machine) median(i int) (rate int64, checked bool) {
	most, checked := c.busiest(i)
	var rates []int64
	if s := c.serverCapacity(); s > 0 {
		rates = append(rates, s)
	}
	for j := 1; j < len(c.nodes); j++ {
		n := &c.nodes[j]
		if j == i || n.pace.slow || n.phase < phServing || n.phase == phServing && !n.contact.alive || n.row.State == Failed {
			continue
		}
		if could := cmp.Or(c.could(j, most), n.pace.could); could > 0 {
			rates = append(rates, could)
		}
	}
	if len(rates) == 0 {
		return 0, checked
	}
	return middle(rates), checked
}

// outdone says whether another than i got twice of rate, since somebody was called slow last.
func (c *Machine) outdone(i int, rate int64) bool {
	for j := range c.nodes {
		if n := &c.nodes[j]; j > 0 && j != i && n.pace.slowed != i && !n.pace.slow && n.row.State != Failed && n.progress.best >= 2*rate {
			return true
		}
	}
	return false
}

// middle is the median of values; of an even number the lower one.
func middle[T cmp.Ordered](values []T) T {
	slices.Sort(values)
	return values[(len(values)-1)/2]
}

// waitedFor says whether the feeder of i waits for i most of the time. A feeder that has
// everything waits for nobody any more, but the nodes behind i still do.
func (c *Machine) waitedFor(i int) bool {
	n := &c.nodes[i]
	f := &c.nodes[n.feed.feeder]
	if f.progress.report.Wait == wire.WaitOut {
		return true
	}
	if n.feed.state != feedUp || f.feed.state != feedDone && !(n.feed.feeder == 0 && c.sourceDone) {
		return false
	}
	// What the link still brings may all be in the kernel of i by now.
	w, l := n.progress.report.Wait, wire.Sending{Idle: true}
	if in, ok := c.linkInto(i); ok {
		l = in
	}
	if l.Idle && (w == wire.WaitUnknown || w == wire.WaitIn || w == wire.WaitOut) {
		return false
	}
	at := slices.Index(c.order, i)
	return at >= 0 && slices.ContainsFunc(c.order[at+1:], func(j int) bool {
		n := &c.nodes[j]
		return n.phase == phServing && n.contact.alive && !n.pace.slow
	})
}

// linkInto is what the feeder of i last reported of the link into i.
func (c *Machine) linkInto(i int) (wire.Sending, bool) {
	f := &c.nodes[i].feed
	links := c.nodes[f.feeder].progress.report.Links
	k := slices.IndexFunc(links, func(l wire.Sending) bool { return l.Link == f.link })
	if f.state != feedUp || k < 0 || links[k].Ended {
		return wire.Sending{}, false
	}
	return links[k], true
}

// starved says whether i waits for what its feeder waits for it to take, or does not fetch it from
// a link that could carry more, or waits to send over links that have nothing to send, or that it was not ordered to
// feed: it has no time to run, or lies, and what it measures of itself does not tell.
func (c *Machine) starved(i int) bool {
	n := &c.nodes[i]
	l, ok := c.linkInto(i)
	waits := n.progress.report.Wait == wire.WaitIn ||
		n.progress.report.Wait == wire.WaitOut && !c.feeds(i, c.busyInto)
	return ok && isBusy(l) && waits && n.progress.rate > 0 && (l.Held || max(l.Rate, l.Burst) >= 2*n.progress.rate) && c.waitedFor(i)
}

// busyInto says whether the link into i has something to send, as its feeder says.
func (c *Machine) busyInto(i int) bool {
	l, ok := c.linkInto(i)
	return ok && isBusy(l)
}

// carries is what the link into i carried while it was busy, 0 if that is unknown. Links of one
// feeder share its way out: what another took of it, up to as much, this one could have had.
func (c *Machine) carries(i int) (rate int64) {
	l, ok := c.linkInto(i)
	if !ok || l.Rate <= 1 { // where nothing moves it is not slow: tick sees to that
		return 0
	}
	for _, other := range c.nodes[c.nodes[i].feed.feeder].progress.report.Links {
		rate += min(other.Rate, l.Rate)
	}
	return rate
}

// capacity is what node i could carry in bytes per second and what limits it; 0 is
// unknown.
func (c *Machine) capacity(i int) (rate int64, cause limiter) {
	link := c.carries(i)
	l, ok := c.linkInto(i)
	if ok && link == 0 && isBusy(l) {
		link = l.Burst // of one that is mostly idle nobody waits for more
	}
	rate, cause = c.limits(i, link)
	if gets := c.nodes[i].progress.rate; ok && l.Held && rate == 0 && gets > 1 {
		return gets, limiter{limit: c.names(i)} // it holds up its feeder, and tells nothing of itself
	}
	return rate, cause
}

// limits is the capacity of node i behind a link that could carry as much as link.
func (c *Machine) limits(i int, link int64) (rate int64, cause limiter) {
	n := &c.nodes[i]
	least := func(r int64, why Limit) {
		if r > 0 && (rate == 0 || r < rate) {
			rate, cause = r, limiter{limit: why}
		}
	}
	least(n.progress.report.Relay, LimitProcessor)
	least(n.progress.report.Hash, c.processor(i))
	least(n.progress.report.Disk, LimitDisk)
	if n.progress.report.Wait == wire.WaitLimit { // its limit is what arrives
		least(n.progress.rate, LimitPolicy)
	}
	if least(link, LimitNetwork); cause.limit == LimitNetwork {
		cause.link = c.linkName(i)
	}
	if c.starved(i) {
		if least(n.progress.rate, LimitProcessor); rate == n.progress.rate {
			cause.arrives = true
		}
	}
	return rate, cause
}

// names is the limit that node i itself says it waits for.
func (c *Machine) names(i int) Limit {
	if c.nodes[i].progress.report.Wait == wire.WaitDisk {
		return LimitDisk
	}
	return c.processor(i)
}

// processor is what to call the limit of node i, or of the server, when that is its processor.
func (c *Machine) processor(i int) Limit {
	n := &c.nodes[i]
	if r := n.progress.report; n.row.NoSHA && r.Hash > 0 && (r.Relay == 0 || r.Hash <= r.Relay) {
		return LimitHash
	}
	return LimitProcessor
}

// serverCapacity is what the server could send in bytes per second; 0 is unknown.
func (c *Machine) serverCapacity() int64 {
	rate := c.nodes[0].progress.report.Relay
	if c.cfg.Rate > 0 && (rate == 0 || c.cfg.Rate <= rate) {
		return c.cfg.Rate
	}
	return rate
}

// megabytes prints a rate for people.
func megabytes(rate int64) string {
	if rate < 10e6 {
		return fmt.Sprintf("%.1f MB/s", float64(rate)/1e6)
	}
	return fmt.Sprintf("%.0f MB/s", float64(rate)/1e6)
}

// limiter is what limits one node; of LimitNetwork it has the link. arrives says that the rate is what arrives, and that
// it is the node's fault only as its feeder says.
type limiter struct {
	limit   Limit
	link    string
	arrives bool
}

// limitSending is the limit of a node whose way out is slow, to whomever it sends.
const limitSending Limit = "sending"

func (l limiter) isLink() bool { return l.limit == LimitNetwork }

// String is what rows and events say of it, before the rate.
func (l limiter) String() string {
	switch l.limit {
	case LimitNetwork:
		return "link " + l.link
	case LimitPolicy:
		return "its own rate limit"
	case LimitHash:
		return "hashing without SHA instructions"
	case limitSending:
		return "sends"
	}
	return string(l.limit)
}
