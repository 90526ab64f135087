// Package ring moves blobs from one server to many nodes down a chain of TCP
// connections, in about the time one copy takes: every node receives, checks,
// stores and forwards at the same time. It knows no image format.
//
// A server calls Send with a Source. A node makes a Node, whose Accept returns a
// Sink. PROTOCOL.md is the wire specification.
//
//	Where does a byte go, from socket to disk?    internal/relay, whose doc.go draws the way
//	Where is it decided who feeds whom?           internal/coordinator
//	What does one node do in one transfer?        internal/member
//	How is a file written on a node?              raw
//
// # What is promised
//
// A node is reported Committed only when it said so itself, over an authenticated connection of its own,
// after it hashed every byte it stored and the sum equalled what the server computed while reading. Nothing
// is published anywhere before the server has read its source to the end and found it unchanged. A node
// that dies, hangs or crawls is bypassed; its neighbours go on from where they were, and it is served the
// rest behind them once it can be. Bytes that were changed on the way are found at the next mark and fetched
// from another feeder. A new transfer goes on from what an interrupted one left, once the server's marks
// confirm those bytes. The replay window bounds memory, whatever is sent.
//
// # How it is built
//
// Two pure state machines, Step(event) -> []action, decide: internal/coordinator on the server,
// internal/member on each node. This package drives them: sender*.go on the server, node*.go and
// session*.go on a node. internal/relay moves the bytes on both. internal/wire encodes what both planes
// carry.
//
// Node (node.go) decides who may connect and which transfers are admitted, NodeConfig.Accept what they may
// write. From then on a session (session.go) does what the machine of internal/member says.
//
// # Limits
//
// The ring believes what a node says of itself: one that lies about what it stored is reported as it says,
// and harms nobody else. A sink that cannot be read again (discarding, a standard output) replays only from
// memory, and a standard output cannot go back to a mark. A node whose own clock or storage stops for longer
// than the times in timings.go is treated as gone, and taken back when it answers.
package ring
