package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/meta"
	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/push"
	"github.com/dolly-img/dolly-img/ring/raw/tree"
)

// treeFlags are the flags of raw for a directory.
type treeFlags struct {
	exclude []string
	special bool
	inPlace bool
}

func (f *treeFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&f.exclude, "exclude-path", nil, "leave out of a directory what fits the `PATTERN`, as rsync --exclude does; can be repeated")
	cmd.Flags().BoolVar(&f.special, "special", false, "send devices and named pipes of a directory, too")
	cmd.Flags().BoolVar(&f.inPlace, "in-place", false, "replace the files of a directory one by one in the one that is there, and remove nothing; an interruption leaves it partly new")
}

// isTree reports whether an input is a directory with all that is in it.
func isTree(input string) bool { return strings.HasSuffix(input, "/") }

// onlyFiles are flags of raw that a directory does not have.
var onlyFiles = []string{"allow-empty", "bmap", "force-kind", "format", "gpt", "mode", "no-spool", "no-sync", "sha256", "update", "yes-overwrite"}

// run sends a directory.
func (f *treeFlags) run(cmd *cobra.Command, input string, send *sendFlags, out outputFlags) error {
	var wrong []string
	cmd.Flags().Visit(func(flag *pflag.Flag) {
		if slices.Contains(onlyFiles, flag.Name) {
			wrong = append(wrong, "--"+flag.Name)
		}
	})
	if len(wrong) > 0 {
		return usagef("%s: not for a directory", strings.Join(wrong, ", "))
	}
	if err := tree.CheckExclude(f.exclude); err != nil {
		return usagef("--exclude-path: %v", err)
	}
	if strings.HasPrefix(out.output, "/") {
		if out.output = strings.TrimRight(out.output, "/"); out.output == "" {
			return &usageError{fmt.Errorf("--output /: a directory is replaced as a whole, and the root of a machine cannot be"), "name a directory below it; --in-place replaces files one by one, and removes nothing"}
		}
	}
	m, err := out.meta(meta.KindRaw, "")
	if err != nil {
		return err
	}
	if m.Device != nil {
		return usagef("--output %s: a directory does not go to a device", out.output)
	}
	if !m.Discard && m.Output != "-" {
		m.Tree = &meta.Tree{Special: f.special, InPlace: f.inPlace}
	}
	j, err := send.job(cmd, input, m)
	if err != nil {
		return err
	}
	j.What = push.Tree{Path: input, Exclude: f.exclude, Special: f.special, Note: j.note, Warn: j.warn}
	return j.run(cmd.Context())
}
