// Package wire encodes and decodes what travels on the two planes of the ring. On the data plane these are frames and
// the link hello, with fixed headers in big-endian order. On the control plane these are messages: a length, a type and
// JSON. The package does no I/O but on the reader or writer that it is given. What it decodes encodes to the same bytes
// again. The specification is ring/PROTOCOL.md, sections 4 to 6.
package wire
