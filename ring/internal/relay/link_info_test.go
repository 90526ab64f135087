package relay

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
		want, burst   int64
		held          bool
	}{
		"the link is the limit":           {10e6, time.Second, 0, 10e6, 0, false},
		"half of it is the receiver's":    {10e6, time.Second, time.Second / 2, 20e6, 0, false},
		"all of it is the receiver's":     {2e3, time.Second, time.Second - time.Millisecond, 0, 0, true},
		"it has little to send":           {10e6, time.Second / 2, 0, 0, 123, false},
		"it had nothing to send":          {0, 0, 0, 0, 0, false},
		"nothing moves, and it is to":     {0, time.Second, 0, 1, 0, false},
		"the kernel counts a little more": {10e6, time.Second, time.Second + time.Millisecond, 0, 0, true},
	} {
		old := linkInfo{at: begun, acked: 5, busy: time.Minute, limited: time.Second, kernel: true}
		now := linkInfo{at: begun.Add(time.Second), acked: 5 + c.acked, busy: old.busy + c.busy, limited: old.limited + c.limited, delivery: 123, kernel: true}
		if got, burst, held := now.rateSince(old); got != c.want || burst != c.burst || held != c.held {
			t.Errorf("%s: %d, %d and %v, want %d, %d and %v", name, got, burst, held, c.want, c.burst, c.held)
		}
	}
}

// A link is idle that has nothing to send, and one that had nothing most of the time though its writer
// is in the middle of something: it gets no processor. What memnet knows tells nothing of that.
func TestIdleSince(t *testing.T) {
	begun := time.Unix(1, 0)
	for name, c := range map[string]struct {
		old, now linkInfo
		writing  bool
		want     bool
	}{
		"nothing to send":         {linkInfo{at: begun}, linkInfo{kernel: true, busy: time.Second}, false, true},
		"the receiver lacks some": {linkInfo{at: begun}, linkInfo{kernel: true, busy: time.Second, pending: true}, false, false},
		"busy writing":            {linkInfo{at: begun}, linkInfo{kernel: true, busy: 600 * time.Millisecond}, true, false},
		"starved in a write":      {linkInfo{at: begun}, linkInfo{kernel: true, busy: 400 * time.Millisecond}, true, true},
		"a first look":            {linkInfo{}, linkInfo{kernel: true}, true, false},
		"no kernel":               {linkInfo{at: begun}, linkInfo{}, true, false},
	} {
		c.now.at = begun.Add(time.Second)
		if got := c.now.idleSince(c.old, c.writing); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
