package coordinator

import (
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// progress is how far a node is, as its reports say. The server reports about itself, too; of that only
// report is used.
//
// moved is never later than told, but for a node that has verified everything, which reports no more.
type progress struct {
	// report is the last one, links are the links of the one before.
	report wire.Report
	links  []wire.Sending
	// moved is when a report last told of progress, told is when the last one came.
	moved, told time.Duration
	// rate is how many bytes per second came in between the last two reports, before the same for the report
	// before; 0 is unknown.
	rate, before int64
	// best is the most bytes per second that came in during two reports in a row, since a node was called slow last.
	best int64
}

// begin notes that the node has to tell of progress from now on.
func (p *progress) begin(now time.Duration) { p.moved, p.told = now, now }

// forget drops the last report, because the node begins anew.
func (p *progress) forget() { p.report = wire.Report{} }

// verified notes that the node has everything, which is progress that no report tells of.
func (p *progress) verified(now time.Duration) { p.moved = now }

// take keeps a report.
func (p *progress) take(now time.Duration, r wire.Report) {
	old := &p.report
	if r.Received != old.Received || r.Marked != old.Marked || r.Durable != old.Durable {
		p.moved = now
	}
	p.before = p.rate
	p.rate, p.told = wire.PerSecond(max(0, r.Received-old.Received), now-p.told), now
	p.best = max(p.best, p.gets())
	p.links, p.report = old.Links, r
}

// gets is what a node got per second in each of its last two reports, at the least.
func (p *progress) gets() int64 { return min(p.rate, p.before) }

// compareAnew has best count from now on.
func (p *progress) compareAnew() { p.best = 0 }
