// Package ring moves blobs from one server to many nodes down a chain of TCP
// connections, in about the time one copy takes: every node receives, checks,
// stores and forwards at the same time. It knows no image format.
//
// A server calls Send with a Source; a node makes a Node whose Accept returns a
// Sink. PROTOCOL.md is the wire specification.
//
// # What is promised
//
// A node is reported Committed only when it said so itself, over an
// authenticated connection of its own, after it hashed every byte it stored and
// the sum equalled what the server computed while reading. Nothing is published
// anywhere before the server has read its source to the end and found it
// unchanged. A node that dies is bypassed; its neighbours go on from where they
// were. Memory is bounded by the replay window, whatever is sent.
//
// # How it is built
//
// The decisions are two pure state machines, step(event) -> []action: chain (the
// coordinator, on the server) and member (a node's part in one transfer). The
// rest does what they say: sender.go and transfer.go drive them, relay.go moves
// frames between one feed, the window, the store and the links, and does the same
// work on the server, whose feed is the source. control.go and link.go are the two
// planes; internal/wire has their encodings.
//
// # Limits
//
// A node that hangs without closing its connection is noticed after 5 s on the
// control plane only; slow nodes slow the chain; a transfer that was cut off
// starts again from its beginning. Bypassing slow nodes, falling back to a mark and
// coming back are the next issue's.
package ring
