package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// newRoot makes the command tree. There are no globals: every command keeps its
// flags in a value of its own, and reads and writes what cobra gives it.
func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "dolly-img",
		Short: "Clone container images and files to many nodes at once",
		Long: `Dolly-img sends an image down a chain of nodes. Every node receives, verifies,
stores and forwards at the same time, so a thousand nodes take little longer than
one, and a node that dies on the way is bypassed.

To see it work on this machine alone:  dolly-img demo`,
		Version:           thisBuild().text(),
		SilenceErrors:     true, // main prints them
		SilenceUsage:      true,
		DisableAutoGenTag: true, // the reference in doc/ has no date
	}
	root.SetVersionTemplate("{{.Version}}")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if cmd.HasSubCommands() && cmd.Flags().NArg() > 0 { // a flag of a command whose name is mistyped
			return unknownCommand(cmd, cmd.Flags().Arg(0))
		}
		return &usageError{plainFlagError(err), "see " + cmd.CommandPath() + " --help"}
	})
	group(root)
	root.AddCommand(newPush(), newRaw(), newDaemon(), newReceive(), newStatus(), newCache(), newWarm(), newKeys(), newDevices(),
		newInspect(), newDigest(), newDemo(), newDolly(), newVersion())
	root.InitDefaultCompletionCmd()
	return root
}

// plainFlagError says what a flag wants whose value does not parse, in place of what Go's functions say of it.
func plainFlagError(err error) error {
	var bad *pflag.InvalidValueError
	if !errors.As(err, &bad) {
		return err
	}
	want := ""
	switch bad.GetFlag().Value.Type() {
	case "duration":
		want = "want a number of seconds, or a time such as 90s, 5m or 1h30m"
	case "int":
		want = "not a whole number"
	default:
		return err
	}
	return fmt.Errorf("--%s %s: %s", bad.GetFlag().Name, bad.GetValue(), want)
}

// group makes cmd a command that only holds others. Without arguments it shows its help. If its argument
// names none of the others, that is a usage error.
func group(cmd *cobra.Command) {
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		return unknownCommand(cmd, args[0])
	}
}

// unknownCommand says that cmd holds no command of this name, and which one may be meant.
func unknownCommand(cmd *cobra.Command, name string) error {
	cmd.SuggestionsMinimumDistance = 2
	hint := "see " + cmd.CommandPath() + " --help"
	if near := cmd.SuggestionsFor(name); len(near) > 0 {
		hint = fmt.Sprintf("did you mean %s %s?", cmd.CommandPath(), near[0])
	}
	return &usageError{fmt.Errorf("unknown command %q", name), hint}
}

// exactly is cobra.ExactArgs with our own messages. What names the arguments.
func exactly(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < n:
			return &usageError{fmt.Errorf("%s: missing argument: %s", cmd.Name(), what), "see " + cmd.CommandPath() + " --help"}
		case len(args) > n:
			return &usageError{fmt.Errorf("%s: unexpected argument %q", cmd.Name(), args[n]), "see " + cmd.CommandPath() + " --help"}
		}
		return nil
	}
}
