// Package node is the side of the node: what daemon and receive share.
//
// New reads keys and policy, opens the cache and listens. Then Serve takes transfers until it is told to stop,
// Receive takes one, and ServeMirror serves the cache to the runtimes of this machine. Check says what would be in
// force, and starts nothing. For each request the policy decides, and the answer is a ring.Sink: the cache
// (accept.go), the cache and an output beside it (output.go), or an output alone (direct.go). What a node remembers
// between transfers is in its cache.
//
// It knows ring, cache, identity and raw. It knows no flags and no images of registries, and prints nothing but its log; the
// hint that goes with a refusal comes from Config.Hint.
package node
