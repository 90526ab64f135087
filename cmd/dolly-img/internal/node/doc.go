// Package node is the side of the node. The commands daemon and receive are made of it.
//
// New reads the keys and the policy, opens the cache, and listens. Then Serve takes transfers until it is told to stop,
// Receive takes one, and ServeMirror serves the cache to the runtimes of this machine. Check returns the
// configuration that a node would have, and starts nothing. For each request the policy decides, and the answer is a
// ring.Sink, which sink.go chooses: the cache, the cache and an output beside it (output.go), or an output alone (direct.go). The
// cache has what a node remembers between transfers.
//
// It knows ring, cache, identity and raw. It knows no flags and no registries, and prints nothing but its log. The
// hint that goes with a refusal comes from Config.Hint.
package node
