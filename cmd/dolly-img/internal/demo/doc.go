// Package demo runs a ring of nodes on this machine, each a process of its own, pushes an image to them, and makes faults
// happen to them meanwhile.
//
// A Demo is a value with plain fields and a Run. It prints to Out and Say, and gives its push to Show, which runs it and
// shows what happens. The nodes are daemons of this same program. The package knows no flags: Daemon says how a
// node is started.
package demo
