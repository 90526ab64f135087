package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/push"
)

const rawLong = `Raw sends a regular file, or with - what comes on standard input, to the same path on
every node. The path must be permitted by the policy.toml of each node. It is replaced in
one step when the node has everything, verified and durable. It has the permission bits
of FILE (0400 if that has none), unless --mode sets others, and its modification time.
FILE can also be given as --input FILE.

A file whose size is not where reading ends, as in /proc and /sys, is read to its end as
a stream. A file that becomes longer while it is sent, such as a log, arrives as it was
when it was opened, and raw says so. If it is changed in another way, nothing is committed.

A node that has a file at PATH already, and must not replace it by its policy, compares it when it
is as long as FILE: the same bytes are held, and nothing is written; any others are refused. So the
same command can be repeated after some nodes failed. A file that is held gets the mode and the
owner that are asked for, where it has others, and is committed then; its time stays.

A stream is kept in a temporary file (in $TMPDIR) while it is sent, so that a node
whose predecessor died can be fed again; --no-spool does without.

The exit status of a command before a pipe is unknown to raw: use "set -o pipefail",
and know that what a failed command did write is sent. Of nothing at all raw makes an
error, unless --allow-empty.

--output - writes to the standard output of nodes that run dolly-img receive.`

func newRaw() *cobra.Command {
	var send sendFlags
	var out outputFlags
	var input string
	var noSpool, allowEmpty bool
	cmd := &cobra.Command{
		Use:   "raw FILE --output PATH --nodes LIST",
		Short: "Clone a file or a stream to nodes",
		Long:  rawLong,
		Example: `  dolly-img raw vmlinuz --output /data/ --nodes 'node[01-16]'
  tar cz . | dolly-img raw - --output /data/home.tar.gz --nodes @hostfile`,
		Args: atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			input := input // the flag is printed again where nodes were not served
			name := ""
			switch {
			case input != "" && len(args) > 0:
				return usagef("%s and --input %s: only one of them", args[0], input)
			case len(args) > 0:
				input = args[0]
			}
			switch {
			case input == "":
				return &usageError{fmt.Errorf("no input"), "name it: raw FILE, or raw - for standard input"}
			case input != "-":
				name = filepath.Base(input)
			}
			if (noSpool || allowEmpty) && input != "-" {
				return usagef("--no-spool and --allow-empty are for standard input only, which is named -")
			}
			if out.output == "" && !out.discard {
				return &usageError{fmt.Errorf("no output"), "name it with --output PATH, or use --discard"}
			}
			m, err := out.meta(meta.KindRaw, name)
			if err != nil {
				return err
			}
			j, err := send.job(cmd, input, m)
			if err != nil {
				return err
			}
			if send.stdin && input == "-" {
				return usagef("input - and --nodes @-: standard input can be only one of them")
			}
			j.What = push.File{Path: input, Stream: cmd.InOrStdin(), NoSpool: noSpool, AllowEmpty: allowEmpty, Note: j.note}
			return j.run(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&input, "input", "", "`FILE` to send, or - for standard input")
	out.add(cmd, "`PATH` of the file on the nodes, or with / at the end the directory for it")
	cmd.Flags().BoolVar(&noSpool, "no-spool", false, "do not keep standard input in a temporary file")
	cmd.Flags().BoolVar(&allowEmpty, "allow-empty", false, "send standard input even if nothing comes on it")
	send.add(cmd)
	return cmd
}
