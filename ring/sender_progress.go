package ring

import (
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/coordinator"
	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// sample is what the last progress event said, to tell rates.
type sample struct {
	at    time.Time
	min   int64 // bytes that the slowest node holds
	known bool
}

// measure is the server's report about itself.
func (s *sender) measure() coordinator.EvReport {
	var r wire.Report
	s.relay.meter.fill(&r, false)
	r.Links = s.relay.sendings()
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
	ev := Event{Kind: EventProgress, Bytes: p.Least, Total: s.relay.total(), Done: p.Done, Serving: p.Serving}
	if ev.Bytes < 0 {
		ev.Bytes = max(ev.Total, 0)
	}
	if dt := now.Sub(s.last.at).Seconds(); s.last.known && dt > 0 {
		ev.Rate = max(0, float64(ev.Bytes-s.last.min)/dt)
		limit, name := s.chain.Bottleneck()
		ev.Limit, ev.Bottleneck = Limit(limit), name
	}
	s.last = sample{now, ev.Bytes, true}
	s.event(ev)
}

// total is the number of bytes of all blobs, -1 while a stream's end is unknown.
func (r *relay) total() (n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.blobs {
		if r.blobs[i].size < 0 {
			return -1
		}
		n += r.blobs[i].size
	}
	return n
}
