package ring

import (
	"time"

	"github.com/dolly-img/dolly-img/ring/internal/coordinator"
)

// timings has all times by which the ring decides that something is late, lost or slow, except for those of
// internal/coordinator/timings.go. They stand in one place because they depend on each other: whoever
// changes one sees the others. Nothing changes them at run time. timers_test.go and detect_*test.go
// measure them.
var timings = struct {
	// Of the coordinator's loop and of what is said on control.
	pingEvery time.Duration // PING, REPORT and progress: how old what is known of a node may be
	tickEvery time.Duration // the coordinator looks for what does not happen: how late it sees it
	markPause time.Duration // between two broadcasts of marks: those of small blobs go together

	// Of contact with a node.
	connect    time.Duration // one address of a node does not answer a connect; the next is tried by then
	startLimit time.Duration // who has not answered by then joins late; one dial and greeting, at most
	hush       time.Duration // a node that is greeted lets us wait: another greeting begins in its place
	silence    time.Duration // nothing heard on control, or nothing taken: that end is lost
	resumeFor  time.Duration // a control connection broke and the node does not answer again: it is lost
	redialFor  time.Duration // between two dials of a lost node, and how long each may take
	confirmFor time.Duration // how long an unconfirmed COMMIT is asked after
	askEvery   time.Duration // between two such questions, and between two dials while Config.Wait lasts
	orphanFor  time.Duration // a node keeps a transfer whose server is gone
	turn       time.Duration // a node that is asked has not answered: another one is asked beside it, as if it had
	replyFor   time.Duration // a node does not answer a question: it failed; longer than it may look for the answer
	lookFor    time.Duration // how long a node may look for the answer to a question
	tendFor    time.Duration // a node that tends its cache does not get on: it failed
	yieldFor   time.Duration // a node has a new transfer wait for a busy target
	farewell   time.Duration // the last words to slow peers, and a read that cannot be ended

	// Of links.
	link time.Duration // dial, TLS and hello of a link: it is down
}{
	pingEvery: coordinator.ReportEvery,
	tickEvery: coordinator.TickEvery,
	markPause: 5 * time.Millisecond,

	connect:    2 * time.Second,
	startLimit: 5 * time.Second,
	hush:       50 * time.Millisecond,
	silence:    5 * time.Second,
	resumeFor:  time.Second,
	redialFor:  2 * time.Second,
	confirmFor: coordinator.ConfirmFor,
	askEvery:   time.Second,
	orphanFor:  15 * time.Second,
	turn:       time.Second,
	replyFor:   25 * time.Second,
	lookFor:    20 * time.Second,
	tendFor:    time.Minute,
	yieldFor:   20 * time.Second,
	farewell:   time.Second,

	link: 2 * time.Second,
}
