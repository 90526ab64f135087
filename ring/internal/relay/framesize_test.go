package relay

import (
	"testing"
	"testing/synctest"
	"time"
)

// Frames are what the chain carries in 5 ms, in a short chain in 10, whatever the rate was a while ago, and a
// burst that a shaper lets through does not make them much larger.
func TestFrameSize(t *testing.T) {
	const second = time.Second
	for name, c := range map[string]struct {
		hops   int
		rate   float64 // bytes per second
		burst  float64 // bytes that pass at 1 GB/s, at the beginning
		within time.Duration
		least  int // then
		most   int // at any time
	}{
		"10 Gbit/s, short":              {4, 1.2e9, 0, 100 * time.Millisecond, 1 << 20, 1 << 20},
		"150 MB/s, short":               {4, 150e6, 0, 100 * time.Millisecond, 1 << 20, 1 << 20},
		"1 Gbit/s, long":                {1000, 117e6, 0, 100 * time.Millisecond, 550 << 10, 600 << 10},
		"100 Mbit/s, short":             {4, 11.7e6, 0, second, 100 << 10, 120 << 10},
		"100 Mbit/s, 16 nodes":          {16, 11.7e6, 0, second, 64 << 10, 75 << 10},
		"100 Mbit/s, after a burst":     {16, 11.7e6, 1 << 20, second, 64 << 10, 128 << 10},
		"50 Mbit/s":                     {32, 5.9e6, 0, second, 48 << 10, 48 << 10},
		"hardly anything":               {4, 1e3, 0, second, 48 << 10, 48 << 10},
		"hardly anything after a burst": {4, 1e3, 4 << 20, second, 48 << 10, 128 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var s frameSize
				start := time.Now()
				most, last := 0, 0
				for time.Since(start) < c.within {
					last = s.next(Sizes{}.orUsual(), c.hops, func() (uint64, bool) {
						at := time.Since(start).Seconds()
						return 1 + uint64(min(c.burst+c.rate*at, max(c.rate, 1e9)*at)), true
					})
					most = max(most, last)
					time.Sleep(time.Millisecond)
				}
				if last < c.least || most > c.most || last%frameUnit != 0 {
					t.Errorf("%d bytes in the end, want %d; %d at most, want %d", last, c.least, most, c.most)
				}
			})
		})
	}
}
