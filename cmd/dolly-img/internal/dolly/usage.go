package dolly

// Usage is the help of dolly's own door. What stands behind a tab is shown as it is, also in the manual page.
const Usage = `Usage:

	dolly [-vq] [-a SECONDS] [--listen ADDRESS]                   on a node
	dolly -s [-vqnR46] -I FILE [-O FILE] -H HOSTS [-o LOG] ...    on the server
	dolly -s [-v] -D DIR [-X DIR,...] [-O DIR] -H HOSTS ...
	dolly -s [-v] -f FILE [-o LOG] ...

Dolly's command lines and configuration files, for transfers with the keys, the checks and
the exit status of dolly-img. It does not speak the protocol of dolly: all machines need this program.

Options, in any order:

	-s         this is the server; warn if the file names another host
	-S [NAME]  the same, and the name is not checked
	-f FILE    configuration file; -I, -O and -H beside it win
	-I FILE    file or device to send; - or /dev/stdin is standard input
	-O FILE    file or device on the nodes (- or /dev/stdout is standard output of clients); the same path if it is left out
	-H HOSTS   the nodes, separated by commas; 10.0.1.45-80 and node[01-16] are lists, too
	-D DIR     a directory to send, which takes the place of DIR on the nodes, or of DIR below -O
	-X DIR,... left out of it
	-v         say what is done, as dolly does
	-q         accepted
	-o LOG     append statistics to LOG, with -v in words
	-a SECONDS end if nothing moves for so long; a client also if no transfer begins
	-n         nodes confirm before the file is durable; refused for devices and directories
	-r N       wait N seconds for nodes that do not answer (default 10)
	-R -4 -6   resolve names; to IPv4 or to IPv6 only
	-c SIZE    bytes that will come in a stream, or are in a compressed file: -v tells how much is left
	--dummy    send random bytes, which nodes throw away
	-t SECONDS how long a dummy run lasts
	-b N -u N  accepted, without effect
	-Y         accepted: names with hyphens are names
	--socket   accepted: systemd starts a daemon that is set up so
	-V, -h     print the version, or this help

Refused, because they would do something else here: -d (say --dummy or --socket), -P and -K
(keys say who may send).

Not of dolly are these, which mean what they mean to dolly-img raw and dolly-img receive:

	--keys DIR            of the keys
	--port PORT           of the nodes, on the server
	--report FILE         what became of each node, on the server
	--in-place            replace the files of a directory one by one, and remove none, on the server
	--yes-overwrite N     overwrite the devices of N nodes without asking, on the server
	--cache DIR           of a client
	--listen ADDRESS      of a client (default :9998)

The configuration file has these lines, in this order. Only infile, or dummy, a node and endconfig
have to be there, and outfile with infile. A # begins a comment.

	[compressed] infile PATH [split]
	                  what is sent; compressed: what is in it; split: PATH_0, PATH_1 and so on as one file
	dummy [MB]        in place of it: random bytes, which nodes throw away
	[compressed] outfile PATH [split SIZE]
	                  what nodes write; compressed: in gzip; split: PATH_0, PATH_1 and so on of SIZE,
	                  which is a number of bytes or has k, M, G or T behind it
	segsize N         accepted, without effect
	add N:SUFFIX, add2 N:SUFFIX
	                  data goes to names with SUFFIX behind them, or in front of their first digit; N is 0 or 1
	fanout N          accepted, without effect
	hyphennormal, hypheninterface
	                  accepted, without effect
	server NAME, firstclient NAME, lastclient NAME, clients N
	                  a line each, which dolly had up to 0.64
	NAME              a node, one on each line, in the order of the ring
	endconfig         the end

The exit status is that of dolly-img push:

	0  every node confirmed the right bytes
	1  an error on this machine, and nothing was committed; of a client, it does not have the file
	2  a wrong command line or file, or nobody agreed to overwrite devices
	3  some nodes have it
	4  no node has it
	5  all nodes refused
	6  interrupted before anything was committed
`
