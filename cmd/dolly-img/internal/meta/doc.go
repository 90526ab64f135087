// Package meta has the description that travels with a transfer: it tells the nodes what the blobs are and what to
// do with them. The ring carries it as it is; a server encodes it, a node decodes it strictly. Nothing is read or
// written here.
package meta
