package ring

import (
	"fmt"
	"slices"
)

// Slow nodes (PROTOCOL.md section 9): judged by what each could carry, as its own
// measurements and those of its feeder tell, never by how fast the chain runs.

// slowReports is how many looks in a row must find a node slow.
const slowReports = 3

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
		caps = append(caps, rate)
		if slowest == 0 || rate < least {
			slowest, least, cause = i, rate, why
		}
	}
	for i := range c.nodes {
		n := &c.nodes[i]
		if i != slowest || n.feed.state != feedUp || len(caps) < 2 || 2*least >= medianWithout(caps, least) || !c.waitedFor(i) {
			n.slowSeen = 0
			continue
		}
		if n.slowSeen++; n.slowSeen >= slowReports {
			c.straggles(i, fmt.Sprintf("%s %s", cause, megabytes(least)))
			return
		}
	}
}

// straggles does with a slow node what was asked for.
func (c *chain) straggles(i int, cause string) {
	n := &c.nodes[i]
	if c.straggler == Drop {
		n.row.Link = c.slowLink(i, cause)
		c.end(i, Failed, "slow: "+cause)
		return
	}
	n.slow, n.slowSeen, n.slowCause = true, 0, cause
	n.note, n.row.Link = "slow: "+cause+"; served behind the others", c.slowLink(i, cause)
	c.event(i, Serving, n.note)
	c.toTail(i)
}

// slowLink names the link when it is what is slow.
func (c *chain) slowLink(i int, cause string) string {
	if len(cause) >= 4 && cause[:4] == "link" {
		return c.linkName(i)
	}
	return ""
}

// waitedFor says whether whoever feeds i waits for it most of the time.
func (c *chain) waitedFor(i int) bool {
	return c.nodes[c.nodes[i].feed.feeder].report.Wait == waitNames[waitOut]
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
	if n.report.Wait == waitNames[waitLimit] {
		cause = "its own rate limit"
	}
	if n.feed.state == feedUp {
		for _, l := range c.nodes[n.feed.feeder].report.Links {
			if l.Link == n.feed.link {
				least(l.Rate, "link "+c.linkName(i))
			}
		}
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
