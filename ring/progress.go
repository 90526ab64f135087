package ring

import (
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// sample is what the last progress event said, to tell rates.
type sample struct {
	at    time.Time
	bytes []int64 // received, by node
	min   int64
}

// measure is the server's report about itself.
func (s *sender) measure() evReport {
	var r wire.Report
	s.relay.meter.fill(&r, false)
	r.Links = s.relay.sendings()
	return evReport{0, r}
}

// progress tells, once a second, how far the slowest node is and who holds the
// others up.
func (s *sender) progress() {
	if s.cfg.OnEvent == nil || s.first.IsZero() {
		return
	}
	now := time.Now()
	ev := Event{Kind: EventProgress, Bytes: -1, Total: s.relay.total()}
	received := make([]int64, len(s.chain.nodes))
	for i := 1; i < len(s.chain.nodes); i++ {
		n := &s.chain.nodes[i]
		received[i] = n.report.Received
		switch {
		case n.phase == phFinal && n.row.State.Good(), n.phase == phVerified, n.phase == phCommitting:
			ev.Done++
			ev.Serving++
		case n.phase == phServing:
			ev.Serving++
			if have := n.report.Received + n.row.Skipped; ev.Bytes < 0 || have < ev.Bytes {
				ev.Bytes = have
			}
		}
	}
	if ev.Bytes < 0 {
		ev.Bytes = max(ev.Total, 0)
	}
	if dt := now.Sub(s.last.at).Seconds(); len(s.last.bytes) > 0 && dt > 0 {
		ev.Rate = max(0, float64(ev.Bytes-s.last.min)/dt)
		ev.Bottleneck = s.bottleneck(received, dt)
	}
	s.last = sample{now, received, ev.Bytes}
	s.event(ev)
}

// bottleneck names what holds the chain up, judged from the whole view:
// everybody above a slow node is only waiting to send, everybody below only to
// receive.
func (s *sender) bottleneck(received []int64, dt float64) string {
	// Who is about to be called slow is it, also while those above are not held up yet.
	for _, i := range s.chain.order {
		if n := &s.chain.nodes[i]; n.slowSeen > 0 {
			rate, cause := s.chain.capacity(i)
			if isLink(cause) {
				return cause + ": " + megabytes(rate)
			}
			return n.row.Node + ": " + cause + " " + megabytes(rate)
		}
	}
	for _, i := range s.chain.order {
		n := &s.chain.nodes[i]
		if n.phase != phServing || n.slow {
			continue
		}
		rate := megabytes(int64(float64(received[i]-s.last.bytes[i]) / dt))
		switch n.report.Wait {
		case waitNames[waitOut]:
			continue
		case waitNames[waitDisk]:
			return n.row.Node + ": disk " + rate
		case waitNames[waitCPU]:
			return n.row.Node + ": processor " + rate
		case waitNames[waitLimit]:
			return n.row.Node + ": its own rate limit " + rate
		case waitNames[waitIn]:
			switch {
			case s.chain.starved(i):
				return n.row.Node + ": processor " + rate
			case s.chain.waitedFor(i):
				return "link " + s.chain.linkName(i) + ": " + rate
			}
		}
		return ""
	}
	return ""
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
