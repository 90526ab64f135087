// Package image understands the argument IMAGE of the command line, and opens what it means: a SIF file, an archive or a
// layout, which it recognizes by their content, or an image in a registry, which it keeps in this server's own cache
// while it is pulled.
//
// Open is the door: argument.go finds out what IMAGE is, and open.go opens it. Open returns a ring.Source, and notes the
// name and the time of the image in a meta.Transfer. Cached (cached.go) returns the image in a cache that an argument
// means. CheckSIF and OpenSIF are for commands that take SIF files only. OutputName (name.go) is the name of an image
// below a directory. The grammar of names in registries is in package oci.
//
// The package knows oci, sif and cache. It knows no flags, no nodes and no keys, and prints nothing: what a user should
// know goes to the functions in Options, and the kind of an error or a note says what may be done about it.
package image
