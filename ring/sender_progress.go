package ring

import (
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/coordinator"
	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// meanOver is the time over which a rate is the mean. Nodes report now and then, so that the bytes
// between two reports do not tell how many come in a second.
const meanOver = 5 * time.Second

// samples say how many bytes the slowest node held at several times of the last meanOver.
type samples []sample

type sample struct {
	at  time.Time
	min int64
}

// rate adds a sample and returns the mean in bytes per second. known is false for the first sample. When
// the slowest node is no longer served, what the slowest one holds makes a leap: most bounds the mean by
// what can have come, and is 0 where there is no limit.
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

// measure returns the server's report about itself.
func (s *sender) measure() coordinator.EvReport {
	var r wire.Report
	s.relay.Report(&r, false)
	r.Received = s.relay.Streamed()
	r.Blob, r.Good = s.relay.Brought()
	return coordinator.EvReport{Report: r}
}

// progress tells how far the slowest node is, and who holds the others up. It is called
// once a second.
func (s *sender) progress() {
	if s.cfg.OnEvent == nil && s.cfg.OnNodes == nil {
		return
	}
	now := time.Now()
	ev, phase := s.sums(now)
	if phase != PhaseAsk {
		s.event(ev)
	}
	if s.cfg.OnNodes != nil {
		s.cfg.OnNodes(s.snapshot(now, phase, ev))
	}
}

// sums returns the event of a progress, and the phase that the transfer is in. In PhaseAsk nothing has moved.
func (s *sender) sums(now time.Time) (Event, Phase) {
	p := s.chain.Progress()
	if s.first.IsZero() {
		return s.comparison(now, p)
	}
	phase := PhaseSend
	ev := Event{Kind: EventProgress, Bytes: p.Least, Total: s.relay.Total(), Done: p.Done, Serving: p.Serving}
	if ev.Bytes < 0 {
		ev.Bytes, phase = max(ev.Total, 0), PhaseCommit
	}
	if ev.Verifying = p.Checked > 0 && p.Least >= 0 && ev.Bytes == ev.Total; ev.Verifying {
		ev.Bytes, phase = min(p.Checked, ev.Total), PhaseVerify
	}
	if ev.Verifying != s.verifying {
		s.verifying, s.past = ev.Verifying, nil
	}
	most := s.cfg.Rate
	if s.relay.Zeros() || ev.Verifying { // the limit does not count zeros, nor what is read back
		most = 0
	}
	if rate, known := s.past.rate(sample{now, ev.Bytes}, most); known {
		ev.Rate = rate
		limit, name := s.chain.Bottleneck()
		ev.Limit, ev.Bottleneck = Limit(limit), name
	}
	return ev, phase
}

// comparison tells how far the nodes are that compare what they have, or the server, if that is slower.
func (s *sender) comparison(now time.Time, p coordinator.Progress) (Event, Phase) {
	ev := Event{Kind: EventProgress, Total: totalSize(s.blobs)}
	if p.Compares == 0 {
		return ev, PhaseAsk
	}
	ev.Comparing, ev.Bytes, ev.Serving = true, p.Compared, p.Compares
	if s.once.Load() == nil {
		ev.Bytes = min(ev.Bytes, s.marks.log.n*s.marks.log.every)
	}
	ev.Rate, _ = s.past.rate(sample{now, ev.Bytes}, 0)
	return ev, PhaseCompare
}
