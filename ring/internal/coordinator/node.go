package coordinator

// node is what the coordinator knows of one node. Each part is changed only by its own methods, which
// keep what its type promises; owner_test.go sees to that.
type node struct {
	name  string
	dials string // where it is dialled, for rows
	port  string // of its first address

	phase    phase
	contact  contact
	holdings holdings
	feed     feed
	tries    tries
	reach    reach
	taken    taken
	progress progress
	pace     pace
	blame    blame
	commit   commit
	compared compared

	overwriting overwriting

	row  Row   // what is known of it by now; final in phFinal
	note Cause // what happened to it, for a row that ends well
}

// phase is how far a node is. The diagrams of PROTOCOL.md section 8, "The server", draw the phases.
type phase int

const (
	phAway phase = iota - 1 // lost, or did not answer: dialled again while others are served
	phDialing
	phAsked      // OFFER sent
	phReady      // ANSWER came, waits for the start
	phServing    // START sent
	phVerified   // everything durable, waits for COMMIT
	phCommitting // COMMIT sent
	phFinal      // its row is final; it may still forward while alive
)
