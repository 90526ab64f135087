package dolly

// Usage is the help of dolly's own door.
const Usage = `Usage: dolly [-vq] [--listen ADDRESS]                                    on a node
       dolly -s [-vqnR46] -I FILE [-O FILE] -H HOSTS [-o LOG] ...       on the server
       dolly -s [-v] -f FILE [-o LOG] ...

Dolly's command lines and configuration files, for transfers with the keys, the checks and
the exit status of dolly-img. It does not speak the protocol of dolly: all machines need this program.

	-s         this is the server; warn if the file names another host
	-S [NAME]  the same, and the name is not checked
	-f FILE    configuration file; -I, -O and -H beside it win
	-I FILE    file or device to send
	-O FILE    file or device on the nodes (- is standard output of clients); the same path if it is left out
	-H HOSTS   the nodes, separated by commas; 10.0.1.45-80 and node[01-16] are lists, too
	-D DIR     a directory to send, which takes the place of DIR on the nodes, or of DIR below -O
	-X DIR,... left out of it
	-v         say what is done, as dolly does
	-q         accepted
	-o LOG     append statistics to LOG, with -v in words
	-a SECONDS end if nothing moves for so long
	-n         nodes confirm before the file is durable; refused for devices and directories
	-r N       wait N seconds for nodes that do not answer (default 10)
	-R -4 -6   resolve names; to IPv4 or to IPv6 only
	-c SIZE    bytes that will come in a stream, or are in a compressed file: -v tells how much is left
	--dummy    send random bytes, which nodes throw away
	-t SECONDS how long a dummy run lasts
	-b -u      accepted, without effect
	-Y         accepted: names with hyphens are names
	--socket   accepted: systemd starts a daemon that is set up so
	-V, -h     print the version, or this help

Refused, because they would do something else here: -d (say --dummy or --socket), -P and -K
(keys say who may send).

Not of dolly: --keys DIR, --port PORT, --report FILE and --yes-overwrite N of the server, --keys DIR,
--cache DIR and --listen ADDRESS of a client. They mean what they mean to dolly-img raw and
dolly-img receive.

The exit status is that of dolly-img push: 0 only if every node confirmed the right bytes.
`
