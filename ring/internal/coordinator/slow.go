package coordinator

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// Slow nodes (SLOW.md): judged by what each could carry, as its own
// measurements and those of its feeder tell, never by how fast the chain runs.

// speeds is what the coordinator knows of speed that no single node has.
type speeds struct {
	judged     time.Duration // when slow nodes were last looked for
	stoodOut   int           // who was slower than the others when the bottleneck was last asked for; 0: nobody
	serverSlow bool          // its links are, to whomever
	most       int64         // bytes per second that several feeders send at most; 0 is unknown
}

// judgeSpeed looks for the one node that holds the others up.
func (c *Machine) judgeSpeed() {
	c.measure() // also for who asks for the bottleneck
	if c.cfg.Straggler == Wait || c.interrupted {
		return
	}
	c.review()
	slowest, least, cause := c.slowest()
	median, _ := c.median(slowest)
	sure := true
	if slowest != 0 && !c.worth(slowest, least, median, cause) {
		slowest = 0
	} else if cause.isLink() {
		if slowest, sure = c.sameCable(slowest, least, median); slowest != 0 {
			least, cause = c.capacity(slowest)
		}
	}
	for i := range c.nodes {
		n := &c.nodes[i]
		if i != slowest || slowest == 0 {
			n.pace.seen, n.pace.unsure = 0, false
			continue
		}
		if n.pace.unsure = !sure; sure || n.pace.seen < timings.slowLooks-1 {
			n.pace.seen++
		}
		if n.pace.seen < timings.slowLooks {
			continue
		}
		if f := n.feed.feeder; cause.isLink() && c.nodes[f].pace.slowed != 0 && c.nodes[f].pace.slowed != i {
			c.feederSlow(f, i, least, cause)
		} else {
			c.straggles(i, least, cause)
		}
		return
	}
}

// feederSlow is for when the second receiver of one feeder has a slow link, too: it is the feeder's way
// out, and the first one was moved in vain. If it was the same with another feeder, nobody's is slow.
func (c *Machine) feederSlow(f, i int, rate int64, cause limiter) {
	n, text := &c.nodes[f], megabytes(rate)
	c.exonerate(n.pace.slowed, cause.String()+" "+text+", too")
	n.pace.slowed = 0
	for p := range c.nodes {
		if o := &c.nodes[p]; f != 0 && p != f && o.pace.sends > 0 && 2*o.pace.sends < 3*rate && 2*rate < 3*o.pace.sends {
			c.speeds.most = max(rate, o.pace.sends)
			c.exonerate(p, n.name+" sends "+text+", too")
			return
		}
	}
	switch {
	case f == 0:
		c.speeds.serverSlow = true
	case n.phase != phServing: // it has everything, and only stops feeding
		c.avoid(i, f)
		c.relink(i)
	default:
		n.pace.sends = rate
		c.straggles(f, rate, limiter{limit: limitSending})
	}
}

// measure keeps what the links into those that are served have carried: at their best, a little less
// with each second in which it was less, or in which they did not show it, but not less than they do.
func (c *Machine) measure() {
	for _, i := range c.order {
		n := &c.nodes[i]
		if n.phase != phServing || !n.contact.alive {
			continue
		}
		l, _ := c.linkInto(i)
		switch {
		case l.Rate > 1:
			n.pace.carried = max(l.Rate, n.pace.carried-n.pace.carried/8)
		case n.pace.carried > 0:
			n.pace.carried = max(n.progress.rate, n.pace.carried-n.pace.carried/32)
		}
		if l.Burst > 0 {
			n.pace.burst = l.Burst
		}
	}
}

// slowest is who could carry least of those that others wait for; 0 is nobody.
func (c *Machine) slowest() (who int, least int64, cause limiter) {
	served := 0
	for _, i := range c.order {
		n := &c.nodes[i]
		if n.phase != phServing || !n.contact.alive || n.pace.slow {
			continue
		}
		served++
		if n.pace.cleared >= maxCleared || !c.holdsUp(i) {
			continue
		}
		if rate, why := c.capacity(i); rate > 0 && (who == 0 || rate < least) {
			who, least, cause = i, rate, why
		}
	}
	if served < 2 { // nobody would be helped
		return 0, 0, limiter{}
	}
	return who, least, cause
}

// maxCleared is how often who was called slow can turn out not to be: then it is let be.
const maxCleared = 2

// median is what the server and the nodes but i could carry, as far as it is known; of an even
// number the lower one. What passed in a moment over a link that is mostly idle is no proof that
// it could go on like this: a shaper lets as much through as it has saved up. It counts for no more
// than the median of what links carried that were busy; checked is whether there were some. One
// of them may be as slow as i, so there must be two, and of two the better one counts.
func (c *Machine) median(i int) (rate int64, checked bool) {
	var carried []int64
	for j := range c.nodes {
		if n := &c.nodes[j]; j != i && !n.pace.slow && n.pace.carried > 0 {
			carried = append(carried, n.pace.carried)
		}
	}
	most := int64(math.MaxInt64)
	if checked = len(carried) > 1; checked {
		slices.Sort(carried)
		most = carried[len(carried)/2]
	} else if c.speeds.most > 0 {
		most = c.speeds.most
	}
	var rates []int64
	if s := c.serverCapacity(); s > 0 {
		rates = append(rates, s)
	}
	for j := range c.nodes {
		n := &c.nodes[j]
		if j == 0 || j == i || n.pace.slow || n.phase < phServing || n.phase == phServing && !n.contact.alive || n.row.State == Failed {
			continue
		}
		if n.phase == phServing { // who has everything is compared with, too
			link := n.pace.carried
			if link == 0 {
				link = min(n.pace.burst, max(most, n.progress.rate))
			}
			if could, _ := c.limits(j, link); could > 0 {
				n.pace.could = could
			}
		}
		if n.pace.could > 0 {
			rates = append(rates, n.pace.could)
		}
	}
	if len(rates) == 0 {
		return 0, checked
	}
	return middle(rates), checked
}

// gets is what a node got per second in each of its last two reports, at the least.
func (n *node) gets() int64 { return min(n.progress.rate, n.progress.before) }

// outdone says whether another than i got twice of rate, since somebody was called slow last.
func (c *Machine) outdone(i int, rate int64) bool {
	for j := range c.nodes {
		if n := &c.nodes[j]; j > 0 && j != i && !n.pace.slow && n.row.State != Failed && n.progress.best >= 2*rate {
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

// review looks again at those that were called slow, now that it is known better what others
// carry, and what they get from another feeder: they go on like all others, or are dropped if asked for.
func (c *Machine) review() {
	for i := range c.nodes {
		n := &c.nodes[i]
		if !n.pace.slow || n.phase != phServing || !n.contact.alive || n.feed.state == feedDone {
			continue
		}
		median, checked := c.median(i)
		switch {
		case n.pace.link != "" && n.feed.state == feedUp && n.gets() >= 2*n.pace.rate && !c.outdone(i, n.gets()): // it was that link
			c.exonerate(i, "it gets "+megabytes(n.gets()))
		case checked && 3*n.pace.rate >= 2*median:
			c.exonerate(i, "others carry "+megabytes(median))
		case c.cfg.Straggler == Drop && c.outdone(i, n.pace.rate):
			n.row.Link = n.pace.link
			c.end(i, Failed, n.pace.why)
		}
	}
}

// holdsUp says whether others wait for i.
func (c *Machine) holdsUp(i int) bool { return c.nodes[i].feed.state == feedUp && c.waitedFor(i) }

// sameCable says whom a slow link into i speaks against: a bad cable slows the links at both
// its ends, and which one measures less is chance; so is it of a node that gets little processor. If the
// link into i's feeder is about as slow, it is the feeder, or 0 where moving that would not help. It is
// the feeder also if it was it in the look before, but then this is not sure, and holds for one look only.
func (c *Machine) sameCable(i int, rate, median int64) (who int, sure bool) {
	f := c.nodes[i].feed.feeder
	if f == 0 {
		return i, true
	}
	n := &c.nodes[f]
	if r, why := c.capacity(f); n.phase == phServing && n.contact.alive && !n.pace.slow && why.isLink() && 2*r < 3*rate && c.holdsUp(f) {
		if !c.worth(f, rate, median, why) {
			return 0, true
		}
		return f, true
	}
	if n.pace.seen > 0 && !n.pace.unsure {
		return f, false
	}
	return i, true
}

// worth says whether moving i, which could carry rate where others carry median, would help.
func (c *Machine) worth(i int, rate, median int64, cause limiter) bool {
	n := &c.nodes[i]
	if 2*rate >= median || cause.isLink() && n.feed.feeder == 0 && c.speeds.serverSlow {
		return false
	}
	left := -n.progress.report.Received
	for b, d := range c.blobs {
		if d.Size < 0 {
			return true // nobody knows how much there is to come
		}
		if n.holdings.held[b] < 0 {
			left += d.Size - n.holdings.claims[b]
		}
	}
	takes := time.Duration(float64(left) / float64(rate) * float64(time.Second))
	could := time.Duration(float64(left) / float64(median) * float64(time.Second))
	return takes-could > timings.slowSaves && (!cause.isLink() || n.feed.feeder != 0 || takes > timings.slowServer)
}

// exonerate is for who was moved in vain.
func (c *Machine) exonerate(i int, why string) {
	n := &c.nodes[i]
	c.forgetSlowed(i)
	if !n.pace.slow || n.phase != phServing {
		return
	}
	if strings.HasPrefix(n.note.Text, n.pace.why) { // else something else has happened to it since
		n.note, n.row.Link = Cause{}, ""
	}
	n.pace.slow, n.pace.sends = false, 0
	n.pace.cleared++
	c.event(i, Serving, because("is not slow: "+why))
	if n.contact.alive && (n.feed.state == feedDialled || n.feed.state == feedUp) {
		c.relink(i) // without the lag
	}
}

// forgetSlowed is for who does not speak against its feeder any more.
func (c *Machine) forgetSlowed(i int) {
	for f := range c.nodes {
		if c.nodes[f].pace.slowed == i {
			c.nodes[f].pace.slowed = 0
		}
	}
}

// straggles moves a slow node to the end. To fail it, where that was asked for, is for review: somebody
// else must be seen to get twice as much from then on.
func (c *Machine) straggles(i int, rate int64, cause limiter) {
	n := &c.nodes[i]
	n.row.Link = "" // of whatever its note said before
	n.pace.rate, n.pace.why = rate, "slow: "+cause.String()+" "+megabytes(rate)
	if cause.isLink() {
		n.row.Link = c.linkName(i)
		c.nodes[n.feed.feeder].pace.slowed = i
	}
	n.pace.link = n.row.Link
	for j := range c.nodes {
		c.nodes[j].progress.best = 0
	}
	n.pace.slow, n.pace.seen = true, 0
	n.note = because(n.pace.why + "; served behind the others")
	c.event(i, Serving, n.note)
	c.toTail(i)
}

// waitedFor says whether whoever feeds i waits for it most of the time. A feeder that has
// everything waits for nobody any more, but those behind i still do.
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

// linkInto is what the feeder of i last told of its link.
func (c *Machine) linkInto(i int) (wire.Sending, bool) {
	f := &c.nodes[i].feed
	links := c.nodes[f.feeder].progress.report.Links
	k := slices.IndexFunc(links, func(l wire.Sending) bool { return l.Link == f.link })
	if f.state != feedUp || k < 0 {
		return wire.Sending{}, false
	}
	return links[k], true
}

// starved says whether i waits for what its feeder waits for it to take, or does not fetch it from
// a link that could carry more, or waits to send over links that have nothing to send: it has no time to
// run, and what it measures of itself does not tell.
func (c *Machine) starved(i int) bool {
	n := &c.nodes[i]
	l, ok := c.linkInto(i)
	waits := n.progress.report.Wait == wire.WaitIn ||
		n.progress.report.Wait == wire.WaitOut && len(n.progress.report.Links) > 0 && !slices.ContainsFunc(n.progress.report.Links, isBusy)
	return ok && isBusy(l) && waits && n.progress.rate > 0 && (l.Held || max(l.Rate, l.Burst) >= 2*n.progress.rate) && c.waitedFor(i)
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
	if l, ok := c.linkInto(i); ok && link == 0 && isBusy(l) {
		link = l.Burst // of one that is mostly idle nobody waits for more
	}
	return c.limits(i, link)
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
	if h, d := n.progress.report.Hash, n.progress.report.Disk; h > 0 && d > 0 {
		why := LimitDisk
		if h < d {
			why = LimitProcessor
		}
		least(max(1, int64(1/(1/float64(h)+1/float64(d)))), why)
	} else {
		least(h, LimitProcessor)
		least(d, LimitDisk)
	}
	if n.progress.report.Wait == wire.WaitLimit { // its limit is what arrives
		least(n.progress.rate, LimitPolicy)
	}
	if least(link, LimitNetwork); cause.limit == LimitNetwork {
		cause.link = c.linkName(i)
	}
	if c.starved(i) {
		least(n.progress.rate, LimitProcessor)
	}
	return rate, cause
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
