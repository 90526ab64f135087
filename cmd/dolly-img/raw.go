package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/hinted"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
	"github.com/dolly-img/dolly-img/ring"
	"github.com/dolly-img/dolly-img/ring/bytesize"
	"github.com/dolly-img/dolly-img/ring/raw"
)

func newRaw() *cobra.Command {
	var send sendFlags
	var out outputFlags
	var input string
	var noSpool, allowEmpty bool
	cmd := &cobra.Command{
		Use:   "raw FILE --output PATH --nodes LIST",
		Short: "Clone a file or a stream to nodes",
		Long: `Raw sends a regular file, or with - what comes on standard input, to the same path on
every node. The path must be permitted by the policy.toml of each node. It is replaced in
one step when the node has everything, verified and durable. It has the permission bits
of FILE (0400 if that has none), unless --mode sets others, and its modification time.
FILE can also be given as --input FILE.

A file whose size is not where reading ends, as in /proc and /sys, is read to its end as
a stream. A file that becomes longer while it is sent, such as a log, arrives as it was
when it was opened, and raw says so. If it is changed in another way, nothing is committed.

A node that has a file at PATH already, and must not replace it by its policy, compares it when it
is as long as FILE: the same bytes are held, and nothing is written; any others are refused. So the
same command can be repeated after some nodes failed.

A stream is kept in a temporary file (in $TMPDIR) while it is sent, so that a node
whose predecessor died can be fed again; --no-spool does without.

The exit status of a command before a pipe is unknown to raw: use "set -o pipefail",
and know that what a failed command did write is sent. Of nothing at all raw makes an
error, unless --allow-empty.

--output - writes to the standard output of nodes that run dolly-img receive.`,
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
			j, err := send.job(cmd, input, "file")
			if err != nil {
				return err
			}
			if send.stdin && input == "-" {
				return usagef("input - and --nodes @-: standard input can be only one of them")
			}
			j.screen = newScreen(cmd.ErrOrStderr())
			in := rawInput{path: input, stdin: cmd.InOrStdin(), noSpool: noSpool, allowEmpty: allowEmpty, note: j.note}
			j.open = func(context.Context) (ring.Source, *meta.Transfer, error) {
				source, err := in.open(m)
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
	return hinted.Errorf("did the command before the pipe fail? --allow-empty sends it all the same", "standard input is empty")
}

// rawInput is what raw sends.
type rawInput struct {
	path       string // - for standard input
	stdin      io.Reader
	noSpool    bool
	allowEmpty bool
	note       func(format string, args ...any)
}

// open opens the input, and notes in m what only the file knows: its time, and its
// permission bits unless the user set them.
func (in *rawInput) open(m *meta.Transfer) (ring.Source, error) {
	if in.path == "-" {
		dir := os.TempDir()
		if in.noSpool {
			dir = ""
		}
		s, err := raw.Stream(in.stdin, dir)
		if err != nil {
			return nil, err
		}
		if in.allowEmpty {
			return s, nil
		}
		return filled{s}, nil
	}
	f, err := raw.OpenFile(in.path)
	if err != nil {
		return nil, err
	}
	m.KeepMode(f.Mode())
	if !f.Lies() {
		m.Mtime = f.ModTime()
		return &growing{f, in}, nil
	}
	in.note("%s is not as long as its size of %s says: it is read to its end as a stream", in.path, bytesize.Text(f.Size()))
	s, err := f.Stream(os.TempDir())
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return s, nil
}

// growing is a file that may become longer while it is sent.
type growing struct {
	*raw.File
	in *rawInput
}

// Unchanged is that of the file. It says what the nodes do not have.
func (g *growing) Unchanged(ctx context.Context) error {
	err := g.File.Unchanged(ctx)
	if err == nil && g.Grown() > 0 {
		g.in.note("%s became longer while it was read: the nodes get the %s that it had when it was opened, without the %s behind them",
			g.in.path, bytesize.Text(g.Size()), bytesize.Text(g.Grown()))
	}
	return err
}
