// Package ring moves blobs from one server to many nodes down a chain of TCP
// connections, in about the time one copy takes: every node receives, checks,
// stores and forwards at the same time. It knows no image format.
//
// A server calls Send with a Source; a node makes a Node whose Accept returns a
// Sink. PROTOCOL.md is the wire specification.
//
//	Where does a byte go, from socket to disk?    internal/relay, whose doc.go draws the way
//	Where is it decided who feeds whom?           internal/coordinator
//	What does one node do in one transfer?        internal/member
//	How is a file written on a node?              raw
//
// # What is promised
//
// A node is reported Committed only when it said so itself, over an
// authenticated connection of its own, after it hashed every byte it stored and
// the sum equalled what the server computed while reading. Nothing is published
// anywhere before the server has read its source to the end and found it
// unchanged. A node that dies, hangs or crawls is bypassed; its neighbours go on from
// where they were, and it is served the rest behind them once it can be. Bytes that
// were changed on the way are found at the next mark and fetched from somebody else.
// A new transfer goes on from what an interrupted one left, once the server's marks confirm those bytes.
// Memory is bounded by the replay window, whatever is sent.
//
// # How it is built
//
// Two pure state machines decide, Step(event) -> []action: internal/coordinator on the server (who feeds
// whom, who may commit), internal/member on each node (what one node does in one transfer). This package
// drives them: sender*.go on the server, node*.go and session*.go on a node, control.go and dial.go over the
// network. internal/relay moves the bytes between one feed, the window, the store and the links; it does
// the same work on the server, whose feed is the source. internal/wire encodes what both planes carry, and
// internal/simcheck judges simulated transfers in tests.
//
// Who decides what on a node? Node (node.go) tells connections apart and decides who
// may connect and which transfers are admitted; NodeConfig.Accept decides what they may
// write. From then on the machine of package member decides, and its session (session.go)
// does what it says.
//
// # Limits
//
// What a node says of itself is believed: one that lies about what it stored is
// reported as it says, and harms nobody else. A sink that cannot be read again
// (discarding, a standard output) replays only from memory, and a standard output
// cannot go back to a mark. A node whose own clock or storage stops for longer than
// the times in timings.go is treated as gone, and taken back when it answers.
package ring
