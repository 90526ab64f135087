// Package image understands what IMAGE on the command line is, and opens it: a SIF file, an archive or a layout, told
// by content, or an image in a registry, which is kept in this server's own cache while it is pulled.
//
// Open is the door; it gives a ring.Source and notes the name and the time of the image in a meta.Transfer. Cached
// tells which image in a cache an argument means, CheckSIF and OpenSIF are for commands that take SIF files only, and
// OutputName is what an image is called below a directory.
//
// It knows packages oci, sif and cache. It knows no flags, prints nothing, and knows neither nodes nor keys: what a user
// should know goes to the functions in Options, and what may be done about an error is told by its kind.
package image
