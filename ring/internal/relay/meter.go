package relay

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/wire"
)

// waitKind is what a goroutine of the relay spends its time on.
type waitKind int

const (
	waitCPU   waitKind = iota // on nothing: it works
	waitIn                    // for its feed
	waitDisk                  // for the store, which is behind
	waitLimit                 // for a limit on the rate
	waitOut                   // for those it feeds
	waitKinds
)

// waitNames are the words of a REPORT.
var waitNames = [waitKinds]wire.Wait{waitCPU: wire.WaitCPU, waitIn: wire.WaitIn, waitDisk: wire.WaitDisk, waitLimit: wire.WaitLimit, waitOut: wire.WaitOut}

// activity sums up what one goroutine spends its time on. Other goroutines may take the sums at any time, also
// while that one waits.
type activity struct {
	mu    sync.Mutex
	kind  waitKind
	since time.Time
	sum   [waitKinds]time.Duration
}

// is notes what the goroutine does from now on, and returns what it did before. A nil activity keeps nothing.
func (a *activity) is(k waitKind) (was waitKind) {
	if a == nil {
		return k
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.close(time.Now())
	was, a.kind = a.kind, k
	return was
}

func (a *activity) close(now time.Time) {
	if !a.since.IsZero() {
		a.sum[a.kind] += now.Sub(a.since)
	}
	a.since = now
}

// take returns the sums since the last take.
func (a *activity) take() [waitKinds]time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.close(time.Now())
	sum := a.sum
	a.sum = [waitKinds]time.Duration{}
	return sum
}

// crew sums up what the hashers together spend their time on. The crew hashes while any of them hashes. Else it
// reads while any of them reads, and else it waits.
type crew struct {
	mu  sync.Mutex
	n   [waitKinds]int // how many of them do what; the figure for waitIn has no meaning
	all activity
}

// turn notes that one of the hashers stops doing was and begins doing is. Each hasher begins and ends with waitIn.
func (c *crew) turn(was, is waitKind) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n[was]--
	c.n[is]++
	kind := waitIn
	switch {
	case c.n[waitCPU] > 0:
		kind = waitCPU
	case c.n[waitDisk] > 0:
		kind = waitDisk
	}
	if kind != c.all.kind {
		c.all.is(kind)
	}
}

// meter measures what a relay could carry, for reports.
type meter struct {
	relay activity // of the producer
	write activity // waitIn: for frames; waitDisk: writing
	hash  crew     // waitIn: for frames; waitCPU: hashing; waitDisk: reading what was there before

	moved, hashed, written atomic.Int64 // bytes since the last report

	delay runDelay
}

// fill completes a report with what was measured since the last one. A rate is the bytes that were moved, hashed or
// written by the time that this took. ended says that everything was received. Then only the store goes on, and
// what it waits for is what the node waits for. runDelay is that of the pool.
func (m *meter) fill(r *wire.Report, ended bool, runDelay func(now time.Time) time.Duration) {
	relay, write, hash := m.relay.take(), m.write.take(), m.hash.all.take()
	moved, hashed, written := m.moved.Swap(0), m.hashed.Swap(0), m.written.Swap(0)
	r.Relay = wire.PerSecond(moved, relay[waitCPU])
	r.Hash = wire.PerSecond(hashed, hash[waitCPU])
	r.Disk = wire.PerSecond(written, write[waitDisk])
	now := time.Now()
	delay, known := m.delay.since(now, runDelay(now)) // in every report, because the next call compares with this one
	starved := false
	if d := write[waitDisk]; d > 200*time.Millisecond {
		// The writer may have waited for a processor, and not for the disk. Then the disk is not to blame.
		switch starved = known && delay > d; {
		case starved && (r.Hash == 0 || r.Disk > 0 && r.Disk < r.Hash):
			r.Hash, r.Disk = r.Disk, 0
		case starved, !known:
			r.Disk = 0
		}
	}
	var all, most time.Duration
	longest := waitIn
	for k, t := range relay {
		all += t
		if t > most {
			longest, most = waitKind(k), t
		}
	}
	if most <= all/2 {
		return
	}
	disk := max(write[waitDisk], hash[waitDisk])
	if (ended || moved == 0) && longest == waitIn && max(disk, hash[waitCPU]) > all/2 {
		longest = waitDisk // everything has come, and is being stored
	}
	if longest == waitDisk && (starved || hash[waitCPU] > disk) {
		longest = waitCPU
	}
	r.Wait = waitNames[longest]
}
