package coordinator

import "time"

// What the driver must keep to, for timings to be right.
const (
	ReportEvery = time.Second      // between two REPORTs of a node, and two EvReport of the server
	TickEvery   = time.Second / 4  // between two EvTick: how late the coordinator sees what does not happen
	ConfirmFor  = 15 * time.Second // how long an unconfirmed COMMIT is asked after
)

// timings is every time by which the coordinator decides that something is late, lost or slow.
// They stand in one place because they depend on each other, and on those of ring/timings.go: who changes one
// sees the others. Nothing changes them at run time. ring/timers_test.go and ring/detect_*test.go measure them.
var timings = struct {
	answer  time.Duration // an offer is not answered: the node failed; longer than a node has a transfer wait for a busy target
	stalled time.Duration // nothing moves on a link both of whose ends wait: it is down
	probed  time.Duration // a node was told to try whether it reaches another, which takes it as long as a link at most: it does not answer
	parked  time.Duration // no node reaches a node, nor may the server feed it: all are asked once more, 15 s after the first dial at most
	mute    time.Duration // a feeder was told to dial, and says neither up nor down, or a node does not answer FEED: it is routed around
	held    time.Duration // a link is held, or idle though there is something to send: it is routed around
	report  time.Duration // an alive node says nothing of how far it is: it failed
	hung    time.Duration // a node that others wait for does not get on by leastRate, or FEED is not answered: it failed
	verify  time.Duration // everything was sent, or COMMIT, and nothing comes back: it failed
	compare time.Duration // a node compares for so much more than twice as long as the quickest would need for the blob: the rest counts as lacking
	blame   time.Duration // a feeder that waits for its feed neither passes a mark nor complains of it: its link is blamed
	patient time.Duration // the same for one that is busy with what it has

	// Of slow nodes.
	slowEvery  time.Duration // between two looks for the slowest
	slowLooks  int           // so many in a row must find the same node slow
	slowSaves  time.Duration // what moving it must save
	slowServer time.Duration // what a node behind a slow link from the server must still take
	slowShows  time.Duration // how long a node that was moved has to show that it is not slow, before it is failed: two reports
}{
	answer:  25 * time.Second,
	stalled: 3 * time.Second,
	probed:  3 * time.Second,
	parked:  5 * time.Second,
	mute:    5 * time.Second,
	held:    10 * time.Second,
	report:  10 * time.Second,
	hung:    time.Minute,
	verify:  10 * time.Minute, // the last fsync, and a copy to the output, may take long
	compare: 10 * time.Second,
	blame:   2 * time.Second,
	patient: 30 * time.Second,

	slowEvery:  time.Second,
	slowLooks:  3,
	slowSaves:  2 * time.Second,
	slowServer: 30 * time.Second,
	slowShows:  3 * time.Second,
}
