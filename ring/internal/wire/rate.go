package wire

import "time"

// tooShort is a time that is too short to tell a rate.
const tooShort = time.Millisecond

// PerSecond returns the rate of n bytes in a time, in bytes per second, as a report has it. There 0 is unknown, so the
// rate is 1 if nothing came in a long time.
func PerSecond(n int64, in time.Duration) int64 {
	if in < tooShort || n == 0 && in < 100*time.Millisecond {
		return 0
	}
	return max(1, int64(float64(n)/in.Seconds()))
}
