package ring

import "time"

// timings is every time by which the ring decides that something is late, lost or slow.
// They stand in one place because they depend on each other: who changes one sees the
// others. Nothing changes them at run time. timers_test.go and detect_*test.go measure them.
var timings = struct {
	// Of the coordinator's loop and of what is said on control.
	pingEvery time.Duration // PING, REPORT and progress: how old what is known of a node may be
	tickEvery time.Duration // the coordinator looks for what does not happen: how late it sees it
	markPause time.Duration // between two broadcasts of marks: those of small blobs go together

	// Of contact with a node.
	connect    time.Duration // one address of a node does not answer a connect: the next is tried
	startLimit time.Duration // who has not answered by then joins late; one dial and greeting, at most
	silence    time.Duration // nothing heard on control, or nothing taken: that end is lost
	resumeFor  time.Duration // a control connection broke and the node does not answer again: it is lost
	redialFor  time.Duration // between two dials of a lost node, and how long each may take
	confirmFor time.Duration // how long an unconfirmed COMMIT is asked after
	askEvery   time.Duration // between two such questions, and between two dials of --wait
	answer     time.Duration // an offer is not answered: the node failed; longer than yieldFor
	orphanFor  time.Duration // a node keeps a transfer whose server is gone
	yieldFor   time.Duration // a node has a new transfer wait for a busy target
	farewell   time.Duration // the last words to slow peers, and a read that cannot be ended

	// Of links.
	link    time.Duration // dial, TLS and hello of a link: it is down
	stalled time.Duration // nothing moves on a link both of whose ends wait: it is down
	probed  time.Duration // a node was told to try whether it reaches another, within link: it does not answer
	dialled time.Duration // a feeder was told to dial, and says neither up nor down: it is down
	report  time.Duration // an alive node says nothing of how far it is: it failed
	hung    time.Duration // nothing moves at a node that waits for itself, or FEED is not answered: it failed
	verify  time.Duration // everything was sent, or COMMIT, and nothing comes back: it failed
	blame   time.Duration // a feeder that waits for its feed neither passes a mark nor complains of it: its link is blamed
	patient time.Duration // the same for one that is busy with what it has

	// Of slow nodes.
	slowEvery  time.Duration // between two looks for the slowest
	slowLooks  int           // so many in a row must find the same node slow
	slowSaves  time.Duration // what moving it must save
	slowServer time.Duration // what a node behind a slow link from the server must still take
}{
	pingEvery: time.Second,
	tickEvery: time.Second / 4,
	markPause: 5 * time.Millisecond,

	connect:    2 * time.Second,
	startLimit: 5 * time.Second,
	silence:    5 * time.Second,
	resumeFor:  time.Second,
	redialFor:  2 * time.Second,
	confirmFor: 15 * time.Second,
	askEvery:   time.Second,
	answer:     25 * time.Second,
	orphanFor:  15 * time.Second,
	yieldFor:   20 * time.Second,
	farewell:   time.Second,

	link:    2 * time.Second,
	stalled: 3 * time.Second,
	probed:  3 * time.Second,
	dialled: 10 * time.Second,
	report:  10 * time.Second,
	hung:    time.Minute,
	verify:  10 * time.Minute, // the last fsync, and a copy to the output, may take long
	blame:   2 * time.Second,
	patient: 30 * time.Second,

	slowEvery:  time.Second,
	slowLooks:  3,
	slowSaves:  2 * time.Second,
	slowServer: 30 * time.Second,
}
