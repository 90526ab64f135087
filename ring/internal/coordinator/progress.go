package coordinator

import (
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// progress is how far a node is, as its reports say. Of the server only report and links are used.
type progress struct {
	report wire.Report
	links  []wire.Sending // of the report before
	moved  time.Duration  // when its report last told of progress
	told   time.Duration  // when its last report came
	rate   int64          // bytes per second it received between the last two; 0 is unknown
	before int64          // rate of the report before
	best   int64          // bytes per second it got in two reports in a row, since somebody was called slow last
}

// begin is for a node that has to tell of progress from now on.
func (p *progress) begin(now time.Duration) { p.moved, p.told = now, now }

// forget is for a node that begins anew.
func (p *progress) forget() { p.report = wire.Report{} }

// verified is for a node that has everything, which is progress that no report tells of.
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
