// Package dolly reads the command lines and the configuration files of dolly, the cloning tool of ETH Zürich that SUSE
// ships, and writes what dolly prints. It knows dolly 0.63 and 0.64 as SUSE's guide for HPC describes them, and what 0.70 to
// 0.72 changed. It opens no connection: a command makes an ordinary push of what it reads here.
//
// # The configuration file
//
// The file is text. A # at the beginning of a line, or behind a blank, begins a comment. Empty lines count for nothing, and
// so does all that stands behind endconfig. The lines come in this order:
//
//	file     = source [target] {setting} [roles] nodes "endconfig"
//	source   = ["compressed"] "infile" PATH ["split"]        the file that the server sends
//	         | "dummy" [MB]                                  no file, but so many MiB of random bytes
//	target   = ["compressed"] "outfile" PATH ["split" SIZE]  the file that the nodes write; only dummy does without
//	setting  = "segsize" N                                   each of them once, in this order
//	         | ("add" | "add2") N ":" SUFFIX {":" SUFFIX}
//	         | "fanout" N
//	         | "hyphennormal" | "hypheninterface"
//	roles    = ["server" NAME] ["firstclient" NAME] ["lastclient" NAME] ["clients" N]
//	nodes    = NAME {NAME}                                   one on each line, in the order of the ring
//
// PATH and NAME are words without blanks. SIZE is a number with k, M, G or T behind it, in powers of 1024, or of bytes. Up to
// 0.64 all of roles had to be there; from 0.70 on none of it may. Both are read. If clients is there, as many names have to
// follow.
//
//   - compressed infile: PATH is in gzip, and the nodes get what is in it.
//   - compressed outfile: the nodes get the bytes of the source in gzip. If both are compressed, they get PATH as it is.
//   - infile PATH split: PATH_0, PATH_1 and so on, to the last one that is there, are sent as one.
//   - outfile PATH split SIZE: the nodes write PATH_0, PATH_1 and so on, of SIZE bytes each but the last.
//   - add N: with 0 the names of the nodes in the data network are those of the list with SUFFIX behind them, with add2 in
//     front of their first digit. With 1 dolly used both networks by turns; here data goes over the named one only. With more
//     than one further network the file is refused.
//   - segsize and fanout have no effect: see Options.Ineffective.
//
// # What is printed
//
// Server and Client write, with -v, what dolly 0.63 writes to standard error, in the same order and words, and Statistics
// appends to the file of -o what dolly appends. Where dolly prints something that is not so here, such as the size of a
// buffer, the number differs and the words do not. MB are 1,000,000 bytes.
package dolly
