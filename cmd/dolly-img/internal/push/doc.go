// Package push sends an image or a file to nodes.
//
// A Push is a value with plain fields: what, to whom and how. The command line and the demo make it alike, and a
// daemon that keeps other caches warm can. Run resolves the names of the nodes, opens what is sent (an Image, a File or
// another Opener), hands it to the ring, and gives the report, with the exit status that the whole has.
//
// It knows keys, images and the ring. It knows no flags and prints nothing: events go to OnEvent, and what may be done
// about an error is told by its kind.
package push
