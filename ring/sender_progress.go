package ring

import (
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/coordinator"
	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// meanOver is the time over which a rate is the mean. Nodes report now and then, so that what came
// between two reports is no measure of what a second brings.
const meanOver = 5 * time.Second

// samples are how many bytes the slowest node held, at times of the last meanOver.
type samples []sample

type sample struct {
	at  time.Time
	min int64
}

// rate adds one and returns the mean, in bytes per second; known is false for the first. A node that
// was slower than all others and is served no more makes a leap in what the slowest one holds: most is
// what can have come, 0 for no limit.
func (s *samples) rate(now sample, most int64) (mean float64, known bool) {
	list := *s
	for len(list) > 1 && now.at.Sub(list[1].at) >= meanOver {
		list = list[1:]
	}
	*s = append(list, now)
	if len(list) == 0 || !now.at.After(list[0].at) {
		return 0, false
	}
	mean = max(0, float64(now.min-list[0].min)/now.at.Sub(list[0].at).Seconds())
	if most > 0 {
		mean = min(mean, float64(most))
	}
	return mean, true
}

// measure is the server's report about itself.
func (s *sender) measure() coordinator.EvReport {
	var r wire.Report
	s.relay.Report(&r, false)
	return coordinator.EvReport{Report: r}
}

// progress tells, once a second, how far the slowest node is and who holds the
// others up.
func (s *sender) progress() {
	if s.cfg.OnEvent == nil || s.first.IsZero() {
		return
	}
	now := time.Now()
	p := s.chain.Progress()
	ev := Event{Kind: EventProgress, Bytes: p.Least, Total: s.relay.Total(), Done: p.Done, Serving: p.Serving}
	if ev.Bytes < 0 {
		ev.Bytes = max(ev.Total, 0)
	}
	if rate, known := s.past.rate(sample{now, ev.Bytes}, s.cfg.Rate); known {
		ev.Rate = rate
		limit, name := s.chain.Bottleneck()
		ev.Limit, ev.Bottleneck = Limit(limit), name
	}
	s.event(ev)
}
