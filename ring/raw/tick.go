package raw

import "time"

// tick is longer than the steps in which most file systems count times, which are up to 10 ms. coarse are those of the others:
// whole seconds on ext4 with inodes of 128 bytes, and two of them on FAT.
const (
	tick   = 20 * time.Millisecond
	coarse = 2 * time.Second
)

// WaitTick waits until another change of a file that was changed last at this time, which is its ctime, would show in its times.
// A time that is no fraction of a second may be of a file system that knows none.
func WaitTick(last time.Time) {
	step := tick
	if last.Nanosecond() == 0 {
		step += coarse
	}
	// What is far in the future was written before somebody set the clock back.
	if wait := time.Until(last.Add(step)); wait > 0 && wait < step+tick {
		time.Sleep(wait)
	}
}
