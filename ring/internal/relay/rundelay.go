package relay

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// processDelay is what allDelay returned at some moment. All transfers of this process ask for it, and summing it up
// takes long with many threads.
var processDelay struct {
	sync.Mutex
	at  time.Time
	sum time.Duration
}

// delayFresh is how old a sum may be that is returned again.
const delayFresh = 20 * time.Millisecond

// runDelay tells how long this process was ready to run and did not get a processor. On a busy or
// confined machine that time looks like time for whatever the process was doing.
type runDelay struct {
	at  time.Time
	sum time.Duration
}

// since returns the delay of all threads together from the last call to this one; sum is what it is since the process
// began. ok is false if the last call was too long ago to say something about the last second.
func (d *runDelay) since(now time.Time, sum time.Duration) (delay time.Duration, ok bool) {
	old := *d
	d.at, d.sum = now, sum
	ok = !old.at.IsZero() && now.Sub(old.at) < 5*time.Second/2
	return max(0, d.sum-old.sum), ok
}

// delayNow returns the delay of all threads together since the process began.
func delayNow(now time.Time) time.Duration {
	processDelay.Lock()
	defer processDelay.Unlock()
	if age := now.Sub(processDelay.at); age < 0 || age >= delayFresh {
		processDelay.at, processDelay.sum = now, allDelay("/proc/self/task")
	}
	return processDelay.sum
}

// allDelay sums up the second figure of schedstat of every thread, in nanoseconds (the kernel's
// Documentation/scheduler/sched-stats.rst). It is 0 with a kernel that does not count.
func allDelay(tasks string) (sum time.Duration) {
	dir, err := os.Open(tasks)
	if err != nil {
		return 0
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		b, err := os.ReadFile(tasks + "/" + name + "/schedstat")
		if f := strings.Fields(string(b)); err == nil && len(f) > 1 {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			sum += time.Duration(n)
		}
	}
	return sum
}
