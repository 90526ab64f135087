// Package coordinator decides for the server what happens in a transfer: who is in the chain, who feeds whom,
// who may commit, and what each row of the report says. It is a pure state machine: Machine.Step takes an
// event and returns actions, it does no I/O, and it knows the time only from EvTick. Package ring drives it.
//
// Where is it decided who feeds whom? Machine.pickFeeder (feeders.go) chooses the feeder of a node, the nearest
// node before it in Machine.order that may feed it, else the server. Machine.relink begins a new link when the old
// one is no good, and feedFrom orders it once the node has said what it needs. What is known of the link and of
// failures is in the types feed and tries (feed.go).
//
// The other decisions, each in a file of Machine's methods beside the type that holds what it goes by:
//
//	who takes part, at the start, late or again    join.go      contact, holdings
//	which nodes reach which others                 search.go    reach
//	which link changed bytes                       suspects.go  blame
//	who is slower, and what the transfer waits for outlier.go   speeds (capacity.go measures)
//	who is too slow for the chain                  slow.go      pace
//	who does nothing though it should              watch.go     progress
//	what a node received, as its feeders say       taken.go     taken
//	who may commit, and what the rows say          commit.go    commit
//
// A node is one value of the type node. Each of its parts is changed only by its own methods (owner_test.go).
// PROTOCOL.md sections 7 to 9 say what the decisions have to keep.
package coordinator
