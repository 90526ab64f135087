package coordinator

import (
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// progress is how far a node is. What its reports say of that counts as far as it is more than they said before, and
// as far as its feeders and the sizes of the blobs confirm it (Machine.confirmed). The server reports about itself, too;
// of that only report is used.
//
// moved is never later than told, but for a node that has verified everything, whose reports are no progress, and for one
// whose feeder has confirmed progress since.
type progress struct {
	// report is the last one, links are the links of the one before.
	report wire.Report
	links  []wire.Sending
	// moved is when a report last told of progress, told is when the last one came. has is what the reports were
	// believed to say at most, in bytes received, compared and stored together.
	moved, told time.Duration
	has         int64
	// said is the same by what the node says alone, which others do not confirm. saidAt is when it last grew.
	said   int64
	saidAt time.Duration
	// goodAt is when a report last told that more is good. Of the server this is how far it has read.
	goodAt time.Duration
	// small is how many bytes its steps of making blobs durable count for beyond what they are, durable the bytes that it
	// has made durable.
	small, durable int64
	// busy is since when there is something for the node to get on with. owes is since when it has not got on by leastStep,
	// without the time in which there was nothing, or in which another node excused it: that it was so for a moment
	// does not have it begin anew. hadThen and saidThen are has and said when it last got on.
	busy, owes        time.Duration
	hadThen, saidThen int64
	// rate is how many bytes per second came in between the last two reports, without runs of zeros, which take no time on a
	// link; before is the same for the report before; 0 is unknown.
	rate, before int64
	// best is the most bytes per second that came in during two reports in a row, since a node was called slow last.
	best int64
}

// begin notes that the node has to tell of progress from now on.
func (p *progress) begin(now time.Duration) { p.moved, p.told, p.busy, p.owes = now, now, now, now }

// resume notes that the node can be heard again. It is no further than before.
func (p *progress) resume(now time.Duration) { p.told = now }

// forget drops the last report, because the node begins anew.
func (p *progress) forget() {
	p.report, p.has, p.hadThen, p.said, p.saidThen = wire.Report{}, 0, 0, 0, 0
	p.small, p.durable = 0, 0
}

// verified notes that the node has everything, which is progress that no report tells of.
func (p *progress) verified(now time.Duration) { p.moved = now }

// ended keeps what a node that has everything reports of the links that it feeds. The rest of it is no progress.
func (p *progress) ended(now time.Duration, r wire.Report) {
	p.told, p.links = now, p.report.Links
	p.report.Wait, p.report.Links = r.Wait, r.Links
}

// confirm notes how far the node is, as far as that is believed.
func (p *progress) confirm(now time.Duration, has int64) {
	if has > p.has {
		p.moved, p.has = now, has
	}
}

// leastBlob is how many bytes a report counts for that tells of fewer that were made durable: a disk may take long for
// each of many small blobs. That may be so as often as there are blobs.
const leastBlob = leastStep / 4

// stored notes how many bytes are durable, of so many blobs.
func (p *progress) stored(durable int64, blobs int) {
	if more := durable - p.durable; more > 0 {
		p.durable = durable
		p.small = min(p.small+max(0, leastBlob-more), int64(blobs)*leastBlob)
	}
}

// take keeps a report, which says that the node is as far as said, and of which has is believed.
func (p *progress) take(now time.Duration, r wire.Report, has, said int64) {
	old := &p.report
	p.confirm(now, has)
	if said > p.said {
		p.saidAt, p.said = now, said
	}
	if r.Blob > old.Blob || r.Blob == old.Blob && r.Good > old.Good {
		p.goodAt = now
	}
	p.before = p.rate
	p.rate, p.told = wire.PerSecond(max(0, brought(r)-brought(*old)), now-p.told), now
	p.best = max(p.best, p.gets())
	p.links, p.report = old.Links, r
}

// brought is how many bytes a node says that links have brought it.
func brought(r wire.Report) int64 {
	received := max(0, r.Received)
	return received - min(received, max(0, r.Zeros))
}

// rest has the time in which the node must get on begin now, because there was nothing for it, or its link is lost.
func (p *progress) rest(now time.Duration) {
	p.step(now)
	p.busy = now
}

// step notes that the node got on. Still there is something to get on with.
func (p *progress) step(now time.Duration) { p.owes, p.hadThen, p.saidThen = now, p.has, p.said }

// pause notes that there was nothing to get on with for so long.
func (p *progress) pause(now, passed time.Duration) { p.busy, p.owes = now, p.owes+passed }

// excuse notes that the node did not get on for so long because of another one.
func (p *progress) excuse(passed time.Duration) { p.owes += passed }

// saysMore says whether the node has got on by leastStep by what it says itself.
func (p *progress) saysMore() bool { return p.said-p.saidThen >= leastStep }

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
	return n.holdings.lacked() * int64(1+n.blame.falls)
}

// confirmed is how far a report of node i is believed, in bytes received, compared, stored and read back together: what it was
// never sent, or the server has not read yet, it can neither compare nor store, and what it received again it does so once.
func (c *Machine) confirmed(i int, r wire.Report) int64 {
	n := &c.nodes[i]
	got := min(c.received(i, r.Received), max(0, n.holdings.lacked()-c.unread)*int64(1+n.blame.falls))
	has := min(n.holdings.claimed+got, c.size-c.unread)
	return got + min(max(r.Marked, 0), has) + min(max(r.Durable, 0), has) + min(max(r.Checked, 0), has) + c.nodes[i].progress.small
}

// has is how many bytes node i is believed to have, when it says to have received so many.
func (c *Machine) has(i int, received int64) int64 {
	return c.nodes[i].holdings.claimed + c.received(i, received)
}

// claimed is how far node i is by what it says alone, as far as the sizes of the blobs allow it.
func (c *Machine) claimed(i int, r wire.Report) int64 {
	return r.Received + min(max(r.Marked, 0), c.size) + min(max(r.Durable, 0), c.size) + min(max(r.Checked, 0), c.size) + c.nodes[i].progress.small
}
