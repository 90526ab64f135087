package ring

import (
	"testing"
	"time"
)

// What a link could carry, from two looks at it a second apart.
func TestRateSince(t *testing.T) {
	begun := time.Unix(1, 0)
	for name, c := range map[string]struct {
		acked         uint64
		busy, limited time.Duration
		want          int64
	}{
		"the link is the limit":           {10e6, time.Second, 0, 10e6},
		"half of it is the receiver's":    {10e6, time.Second, time.Second / 2, 20e6},
		"all of it is the receiver's":     {2e3, time.Second, time.Second - time.Millisecond, 0},
		"it has little to send":           {10e6, time.Second / 2, 0, 123},
		"it had nothing to send":          {0, 0, 0, 0},
		"nothing moves, and it is to":     {0, time.Second, 0, 1},
		"the kernel counts a little more": {10e6, time.Second, time.Second + time.Millisecond, 0},
	} {
		old := linkInfo{at: begun, acked: 5, busy: time.Minute, limited: time.Second, kernel: true}
		now := linkInfo{at: begun.Add(time.Second), acked: 5 + c.acked, busy: old.busy + c.busy, limited: old.limited + c.limited, delivery: 123, kernel: true}
		if got := now.rateSince(old); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}
