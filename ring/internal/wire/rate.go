package wire

import "time"

// tooShort is a time too short to tell a rate by.
const tooShort = time.Millisecond

// PerSecond is the rate, in bytes per second, of n bytes in a time, as reports tell it; 0 is unknown, and nothing in a long time is 1.
func PerSecond(n int64, in time.Duration) int64 {
	if in < tooShort || n == 0 && in < 100*time.Millisecond {
		return 0
	}
	return max(1, int64(float64(n)/in.Seconds()))
}
