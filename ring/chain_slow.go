package ring

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// Slow nodes (PROTOCOL.md section 9): judged by what each could carry, as its own
// measurements and those of its feeder tell, never by how fast the chain runs.

// judgeSpeed looks for the one node that holds the others up.
func (c *chain) judgeSpeed() {
	if c.straggler == Wait || c.interrupted {
		return
	}
	var caps []int64
	slowest, least, cause := 0, int64(0), ""
	if s, _ := c.serverCapacity(); s > 0 {
		caps = append(caps, s)
	}
	for _, i := range c.order {
		n := &c.nodes[i]
		if n.phase != phServing || !n.alive || n.slow {
			continue
		}
		rate, why := c.capacity(i)
		if rate <= 0 {
			continue
		}
		caps, n.could = append(caps, rate), rate
		if c.holdsUp(i) && (slowest == 0 || rate < least) {
			slowest, least, cause = i, rate, why
		}
	}
	for i := range c.nodes { // those that have it are what the last ones are compared with
		if n := &c.nodes[i]; n.phase > phServing && n.could > 0 && !n.slow {
			caps = append(caps, n.could)
		}
	}
	sure := true
	if len(caps) < 2 {
		slowest = 0
	} else if median := medianWithout(caps, least); slowest == 0 || !c.worth(slowest, least, median, cause) {
		slowest = 0
	} else if isLink(cause) {
		if slowest, sure = c.sameCable(slowest, least, median); slowest != 0 {
			least, cause = c.capacity(slowest)
		}
	}
	for i := range c.nodes {
		n := &c.nodes[i]
		if i != slowest || slowest == 0 {
			n.slowSeen = 0
			continue
		}
		if n.slowSeen++; n.slowSeen < timings.slowLooks || !sure {
			continue
		}
		f, rate := n.feed.feeder, megabytes(least)
		if !isLink(cause) || c.nodes[f].slowed == 0 {
			c.straggles(i, cause+" "+rate)
			return
		}
		c.exonerate(c.nodes[f].slowed, cause+" "+rate)
		c.nodes[f].slowed = 0
		if f == 0 {
			c.serverSlow = true
			return
		}
		c.straggles(f, "sends "+rate)
		return
	}
}

// holdsUp says whether others wait for i.
func (c *chain) holdsUp(i int) bool { return c.nodes[i].feed.state == feedUp && c.waitedFor(i) }

// sameCable says whom a slow link into i speaks against: a bad cable slows the links at both
// its ends, and which one measures less is chance. If the link into i's feeder is about as slow,
// it is the feeder, or 0 where moving that would not help. It is the feeder also if it was it in the
// look before, but then this is not sure, and holds for one look only.
func (c *chain) sameCable(i int, rate, median int64) (who int, sure bool) {
	f := c.nodes[i].feed.feeder
	if f == 0 {
		return i, true
	}
	n := &c.nodes[f]
	if r, why := c.capacity(f); n.phase == phServing && n.alive && !n.slow && isLink(why) && 2*r < 3*rate && c.holdsUp(f) {
		if !c.worth(f, rate, median, why) {
			return 0, true
		}
		return f, true
	}
	if n.slowSeen > 0 && n.slowSeen < timings.slowLooks-1 {
		return f, false
	}
	return i, true
}

// worth says whether moving i, which could carry rate where others carry median, would help.
func (c *chain) worth(i int, rate, median int64, cause string) bool {
	n := &c.nodes[i]
	if 2*rate >= median || isLink(cause) && n.feed.feeder == 0 && c.serverSlow {
		return false
	}
	left := -n.report.Received
	for b, d := range c.blobs {
		if d.Size < 0 {
			return true // nobody knows how much there is to come
		}
		if n.held[b] < 0 {
			left += d.Size - n.claims[b]
		}
	}
	takes := time.Duration(float64(left) / float64(rate) * float64(time.Second))
	could := time.Duration(float64(left) / float64(median) * float64(time.Second))
	return takes-could > timings.slowSaves && (!isLink(cause) || n.feed.feeder != 0 || takes > timings.slowServer)
}

// exonerate is for when the second receiver of one feeder has a slow link, too: it is
// the feeder's way out, and the first receiver was moved in vain.
func (c *chain) exonerate(first int, cause string) {
	n := &c.nodes[first]
	if n.slow && n.phase == phServing {
		n.slow, n.note, n.row.Link = false, "", ""
		c.event(first, Serving, "is not slow: "+cause+", too")
		c.relink(first)
	}
}

// straggles does with a slow node what was asked for.
func (c *chain) straggles(i int, cause string) {
	n := &c.nodes[i]
	n.row.Link = "" // of whatever its note said before
	if isLink(cause) {
		n.row.Link = c.linkName(i)
		c.nodes[n.feed.feeder].slowed = i
	}
	if c.straggler == Drop {
		c.end(i, Failed, "slow: "+cause)
		return
	}
	n.slow, n.slowSeen = true, 0
	n.note = "slow: " + cause + "; served behind the others"
	c.event(i, Serving, n.note)
	c.toTail(i)
}

// isLink says whether the cause is a link.
func isLink(cause string) bool { return strings.HasPrefix(cause, "link ") }

// waitedFor says whether whoever feeds i waits for it most of the time. A feeder that has
// everything waits for nobody any more, but those behind i still do.
func (c *chain) waitedFor(i int) bool {
	n := &c.nodes[i]
	f := &c.nodes[n.feed.feeder]
	if f.report.Wait == waitNames[waitOut] {
		return true
	}
	if n.feed.state != feedUp || f.feed.state != feedDone && !(n.feed.feeder == 0 && c.sourceDone) {
		return false
	}
	// What the link still brings may all be in the kernel of i by now.
	w, l := n.report.Wait, wire.Sending{Idle: true}
	if in, ok := c.linkInto(i); ok {
		l = in
	}
	if l.Idle && (w == "" || w == waitNames[waitIn] || w == waitNames[waitOut]) {
		return false
	}
	at := slices.Index(c.order, i)
	return at >= 0 && slices.ContainsFunc(c.order[at+1:], func(j int) bool {
		n := &c.nodes[j]
		return n.phase == phServing && n.alive && !n.slow
	})
}

// linkInto is what the feeder of i last told of its link.
func (c *chain) linkInto(i int) (wire.Sending, bool) {
	f := &c.nodes[i].feed
	links := c.nodes[f.feeder].report.Links
	k := slices.IndexFunc(links, func(l wire.Sending) bool { return l.Link == f.link })
	if f.state != feedUp || k < 0 {
		return wire.Sending{}, false
	}
	return links[k], true
}

// starved says whether i does not fetch what waits for it on a link that could carry
// more: it has no time to run, and what it measures of itself does not tell.
func (c *chain) starved(i int) bool {
	n := &c.nodes[i]
	l, ok := c.linkInto(i)
	return ok && isBusy(l) && n.report.Wait == waitNames[waitIn] && n.rate > 0 && l.Rate >= 2*n.rate && c.waitedFor(i)
}

// capacity is what node i could carry in bytes per second and what limits it; 0 is
// unknown.
func (c *chain) capacity(i int) (rate int64, cause string) {
	n := &c.nodes[i]
	least := func(r int64, why string) {
		if r > 0 && (rate == 0 || r < rate) {
			rate, cause = r, why
		}
	}
	least(n.report.Relay, "processor")
	if h, d := n.report.Hash, n.report.Disk; h > 0 && d > 0 {
		why := "disk"
		if h < d {
			why = "processor"
		}
		least(int64(1/(1/float64(h)+1/float64(d))), why)
	} else {
		least(h, "processor")
		least(d, "disk")
	}
	if n.report.Wait == waitNames[waitLimit] { // its limit is what arrives
		least(n.rate, "its own rate limit")
	}
	if l, ok := c.linkInto(i); ok {
		if l.Rate > 1 { // where nothing moves it is not slow: tick sees to that
			least(l.Rate, "link "+c.linkName(i))
		}
	}
	if c.starved(i) {
		least(n.rate, "processor")
	}
	return rate, cause
}

// serverCapacity is what the server could send.
func (c *chain) serverCapacity() (rate int64, cause string) {
	if r := c.nodes[0].report.Relay; r > 0 {
		rate, cause = r, "source"
	}
	if c.limit > 0 && (rate == 0 || c.limit <= rate) {
		rate, cause = c.limit, "--rate"
	}
	return rate, cause
}

// medianWithout is the median of all values but one that equals out; of an even
// number the lower one.
func medianWithout(values []int64, out int64) int64 {
	v := slices.Clone(values)
	slices.Sort(v)
	if k := slices.Index(v, out); k >= 0 {
		v = slices.Delete(v, k, k+1)
	}
	return v[(len(v)-1)/2]
}

// megabytes prints a rate for people.
func megabytes(rate int64) string {
	if rate < 10e6 {
		return fmt.Sprintf("%.1f MB/s", float64(rate)/1e6)
	}
	return fmt.Sprintf("%.0f MB/s", float64(rate)/1e6)
}
