// Package meta has the description that travels with a transfer: it tells the nodes what the blobs are and what to
// do with them. A server encodes it, the ring carries it as it is, and a node decodes it strictly. The package reads and
// writes no files.
package meta
