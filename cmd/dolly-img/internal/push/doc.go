// Package push sends an image or a file to nodes.
//
// A Push is a value with plain fields: what is sent, to whom and how. The command line and the demo make one, and a
// daemon that keeps other caches warm could. Run resolves the names of the nodes, opens what is sent (an Image, a File or
// another Opener), gives it to the ring, and returns the report with the exit status of the whole.
//
// The package knows keys, images and the ring. It knows no flags and prints nothing: events go to OnEvent, and the kind
// of an error says what may be done about it.
package push
