// Package wire encodes and decodes what travels on the ring's two planes: frames
// and the link hello on the data plane (big-endian, fixed headers), messages on
// the control plane (length, type, JSON). It does no I/O beyond the reader or
// writer it is given, and what it parses re-encodes to the same bytes. The
// specification is ring/PROTOCOL.md, sections 4 to 6.
package wire
