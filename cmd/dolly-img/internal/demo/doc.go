// Package demo is a ring of nodes on this machine, each a process of its own, to which faults are done while an image
// is pushed.
//
// A Demo is a value with a Run. What it tells goes to Out and Say, and its push to Show, which runs it and shows
// what happens. It starts this same program as daemons, and knows their flags, but none of its own command.
package demo
