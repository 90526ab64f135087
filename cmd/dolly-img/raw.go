package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/raw"
)

func newRaw() *cobra.Command {
	var send sendFlags
	var out outputFlags
	var input string
	var noSpool, allowEmpty bool
	cmd := &cobra.Command{
		Use:   "raw --input FILE --output PATH --nodes LIST",
		Short: "Clone a file or a stream to nodes",
		Long: `Raw sends a regular file, or with --input - what comes on standard input, to the
same path on every node. The path must be permitted by the policy.toml of each node.
It is replaced in one step when the node has everything, verified and durable.

A stream is kept in a temporary file (in $TMPDIR) while it is sent, so that a node
whose predecessor died can be fed again; --no-spool does without.

The exit status of a command before a pipe is unknown to raw: use "set -o pipefail",
and know that what a failed command did write is sent. Of nothing at all raw makes an
error, unless --allow-empty.

--output - writes to the standard output of nodes that run dolly-img receive.`,
		Example: `  dolly-img raw --input vmlinuz --output /data/ --nodes 'node[01-16]'
  tar cz . | dolly-img raw --input - --output /data/home.tar.gz --nodes @hostfile`,
		Args: exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			name := ""
			switch {
			case input == "":
				return &usageError{fmt.Errorf("no input"), "name it with --input FILE, or --input - for standard input"}
			case input != "-":
				name = filepath.Base(input)
			}
			if (noSpool || allowEmpty) && input != "-" {
				return usagef("--no-spool and --allow-empty are for --input - only")
			}
			if out.output == "" && !out.discard {
				return &usageError{fmt.Errorf("no output"), "name it with --output PATH, or use --discard"}
			}
			m, err := out.meta(kindRaw, name)
			if err != nil {
				return err
			}
			j, err := send.job(cmd, input, "file")
			if err != nil {
				return err
			}
			if send.stdin && input == "-" {
				return usagef("--input - and --nodes @-: standard input can be only one of them")
			}
			j.open = func(context.Context) (ring.Source, *meta, error) {
				source, err := openRaw(input, cmd.InOrStdin(), noSpool, allowEmpty, m)
				return source, m, err
			}
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

// filled is standard input that has to bring something: nothing is what a command
// before the pipe leaves that failed, and it must not replace a file everywhere.
type filled struct{ *raw.Spool }

// Unchanged is asked at the end of the stream, before any node commits.
func (s filled) Unchanged(context.Context) error {
	if s.Size() > 0 {
		return nil
	}
	return hintf("did the command before the pipe fail? --allow-empty sends it all the same", "standard input is empty")
}

func openRaw(input string, stdin io.Reader, noSpool, allowEmpty bool, m *meta) (ring.Source, error) {
	if input == "-" {
		dir := os.TempDir()
		if noSpool {
			dir = ""
		}
		s, err := raw.Stream(stdin, dir)
		if err != nil {
			return nil, err
		}
		if allowEmpty {
			return s, nil
		}
		return filled{s}, nil
	}
	f, err := raw.OpenFile(input)
	if err != nil {
		return nil, err
	}
	m.Mtime = f.ModTime()
	return f, nil
}
