// Package ring moves blobs from one server to many nodes down a chain of TCP
// connections, in about the time one copy takes: every node receives, checks,
// stores and forwards at the same time. It knows no image format.
//
// A server calls Send with a Source. The program on a node calls NewNode, with an Accept that returns a
// Sink for each transfer. Beside transfers, Ask asks nodes what they hold and Want says what they should keep; a Stock answers
// on the node. PROTOCOL.md is the wire specification.
//
//	Where does a byte go, from socket to disk?      internal/relay, whose doc.go draws the way; then the Sink
//	Where is it decided who feeds whom?             internal/coordinator
//	What does one node do in one transfer?          internal/member
//	How is a file written on a node?                raw; into a cache: package cache, which is no part of this
//	What does a node remember between transfers?    the last 64 outcomes, here (node.go); its blobs, package cache
//
// # What is promised
//
// A node is reported Committed only when it said so itself, over an authenticated connection of its own,
// after it hashed every byte it stored and the sum equalled what the server computed while reading. Nothing
// is published anywhere before the server has read its source to the end and found it unchanged. A node
// that dies, hangs or crawls is bypassed: its neighbours go on from where they were. One that only crawls, or comes
// back, is served behind the others. The server sends a mark, its sum of what it has read, every 4 MiB: bytes that were
// changed on the way are found at the next mark and fetched from another feeder, and a new transfer goes on from what an
// interrupted one left if the marks confirm it. Each process holds the newest bytes of a transfer in a window of bounded
// memory, from which it feeds others again.
//
// # How it is built
//
// Two pure state machines, Step(event) -> []action, decide: internal/coordinator on the server,
// internal/member on each node. This package drives them: sender*.go on the server, node*.go and
// session*.go on a node, control.go and dial.go over the network. internal/relay moves the bytes on both.
// internal/wire encodes what control connections and links carry. internal/memnet, internal/simcheck and ringtest are for
// tests.
//
// Node (node.go) decides who may connect and which transfers are admitted; NodeConfig.Accept decides what a transfer may
// write. From then on a session (session.go) does what the machine of internal/member says.
//
// # Limits
//
// Nobody but a node itself knows what it stored: one that lies about that is reported as it says, and harms nobody
// else, because its word about itself excuses nothing (PROTOCOL.md section 9). A sink that cannot be read again (discarding, a standard output) replays only from
// memory, and a standard output cannot go back to a mark. A node that stands still for longer
// than the times in timings.go, because it is suspended or its storage hangs, is treated as gone, and taken back when it
// answers.
package ring
