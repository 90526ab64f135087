// Package member is a node's part in one transfer, as a state machine: Step takes an event and returns
// actions. It does no I/O and knows no time.
//
// # Who decides what on a node
//
// The Machine decides, for one transfer:
//
//   - which link may feed the node, and which frame is the next one (machine.go),
//   - which bytes are good, and when the node goes back to a mark (marks.go),
//   - when a blob is made durable, when the node has verified everything, and when it publishes: on
//     COMMIT, after VERIFIED, and at no other time,
//   - what the server is told, and whether good parts are kept when the transfer is cut off.
//
// The driver, a session in package ring, does what the Machine says: it opens and reads links, hashes
// and writes through package relay, calls the Sink, and keeps the times after which a server counts as
// lost. Before there is a Machine, the node itself decides who may connect and which transfers it takes, and
// NodeConfig.Accept decides what they may write. The server decides who feeds whom, in package coordinator.
//
// The phases are those of PROTOCOL.md section 8, "The node", and how bytes are judged is section 7.
package member
