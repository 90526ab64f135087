package ring

import (
	"testing"
	"time"
)

// The rate that is shown is never above the one that was set, though nodes report when they like, and
// follows within meanOver.
func TestRateIsMean(t *testing.T) {
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var s samples
	const set = 10e6
	if _, known := s.rate(sample{begin, 0}, set); known {
		t.Error("a rate of nothing")
	}
	have := int64(0)
	for i := 1; i <= 60; i++ {
		// A report comes late every other second, and brings two seconds at once.
		if i%2 == 0 {
			have += 2 * set
		}
		if i == 31 {
			have += 50 * set // the slowest node has failed
		}
		rate, known := s.rate(sample{begin.Add(time.Duration(i) * time.Second), have}, set)
		if !known || rate > set || i > 5 && rate < 0.79*set {
			t.Errorf("after %d s: %.0f, %v", i, rate, known)
		}
	}
	for i := 61; i <= 66; i++ { // nothing comes
		rate, _ := s.rate(sample{begin.Add(time.Duration(i) * time.Second), have}, set)
		if i == 66 && rate != 0 {
			t.Errorf("%.0f though nothing came for 6 s", rate)
		}
	}
	if len(s) > 7 {
		t.Errorf("%d samples are kept", len(s))
	}
	if rate, _ := s.rate(sample{begin.Add(67 * time.Second), 0}, 0); rate != 0 {
		t.Errorf("%.0f after a fall back", rate)
	}
	var free samples
	free.rate(sample{begin, 0}, 0)
	if rate, _ := free.rate(sample{begin.Add(2 * time.Second), 6e9}, 0); rate != 3e9 {
		t.Errorf("%.0f without a limit", rate)
	}
}
