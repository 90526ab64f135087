package coordinator

import (
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// progress is how far a node is. What its reports say of that counts as far as it is more than they said before, and
// as far as the sizes of the blobs allow it (Machine.confirmed). The server reports about itself, too; of that only
// report is used.
//
// moved is never later than told, but for a node that has verified everything, whose reports are no progress.
type progress struct {
	// report is the last one, links are the links of the one before.
	report wire.Report
	links  []wire.Sending
	// moved is when a report last told of progress, told is when the last one came. has is what the reports were
	// believed to say at most, in bytes received, compared and stored together.
	moved, told time.Duration
	has         int64
	// stuck is since when there is something for the node to get on with, and it has not got on by leastStep from
	// hadThen. owes is the same, but begins anew while another node excuses it.
	stuck, owes time.Duration
	hadThen     int64
	// rate is how many bytes per second came in between the last two reports, before the same for the report
	// before; 0 is unknown.
	rate, before int64
	// best is the most bytes per second that came in during two reports in a row, since a node was called slow last.
	best int64
}

// begin notes that the node has to tell of progress from now on.
func (p *progress) begin(now time.Duration) { p.moved, p.told, p.stuck, p.owes = now, now, now, now }

// resume notes that the node can be heard again. It is no further than before.
func (p *progress) resume(now time.Duration) { p.told = now }

// forget drops the last report, because the node begins anew.
func (p *progress) forget() { p.report, p.has, p.hadThen = wire.Report{}, 0, 0 }

// verified notes that the node has everything, which is progress that no report tells of.
func (p *progress) verified(now time.Duration) { p.moved = now }

// ended keeps what a node that has everything reports of the links that it feeds. The rest of it is no progress.
func (p *progress) ended(now time.Duration, r wire.Report) {
	p.told, p.links = now, p.report.Links
	p.report.Wait, p.report.Links = r.Wait, r.Links
}

// take keeps a report, of which has is believed.
func (p *progress) take(now time.Duration, r wire.Report, has int64) {
	old := &p.report
	if has > p.has {
		p.moved, p.has = now, has
	}
	p.before = p.rate
	p.rate, p.told = wire.PerSecond(max(0, r.Received-old.Received), now-p.told), now
	p.best = max(p.best, p.gets())
	p.links, p.report = old.Links, r
}

// rest has the time in which the node must get on begin now.
func (p *progress) rest(now time.Duration) { p.stuck, p.owes, p.hadThen = now, now, p.has }

// excuse notes that the node does not get on because of another one.
func (p *progress) excuse(now time.Duration) { p.owes = now }

// gotOn says whether the node has got on by leastStep.
func (p *progress) gotOn() bool { return p.has-p.hadThen >= leastStep }

// gets is what a node got per second in each of its last two reports, at the least.
func (p *progress) gets() int64 { return min(p.rate, p.before) }

// compareAnew has best count from now on.
func (p *progress) compareAnew() { p.best = 0 }

// mostReceived is how many bytes node i can have received: what it lacked, and the same again each time that it went
// back to a mark.
func (c *Machine) mostReceived(i int) int64 {
	n := &c.nodes[i]
	return n.holdings.lacked(c.blobs) * int64(1+n.blame.falls)
}

// confirmed is how far a report of node i is believed, in bytes received, compared and stored together.
func (c *Machine) confirmed(i int, r wire.Report) int64 {
	var all int64
	for _, d := range c.blobs {
		all += sizeOf(d)
	}
	return min(max(r.Received, 0), c.mostReceived(i)) + min(max(r.Marked, 0), all) + min(max(r.Durable, 0), all)
}
