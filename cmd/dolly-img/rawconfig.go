package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/dolly-img/dolly-img/cmd/dolly-img/internal/dolly"
)

// ofConfig are the flags of raw that a configuration file takes the place of. --nodes takes the place of its list.
var ofConfig = []string{"output", "format", "bmap", "no-spool", "allow-empty", "sha256", "update", "verify-only", "discard", "exclude-path", "special"}

// runConfig is raw with a configuration file of dolly. The flags are copies, and say what the file does not.
func runConfig(cmd *cobra.Command, path string, send sendFlags, out outputFlags, dev deviceFlags, noSync bool) error {
	for _, name := range ofConfig {
		if cmd.Flags().Changed(name) {
			return usagef("-f %s and --%s: the file says that", path, name)
		}
	}
	conf, err := readDollyConfig(path)
	if err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	d, err := (&dolly.Options{File: path, Tries: -1}).Job(conf, host)
	if err != nil {
		return &usageError{err: err}
	}
	option := ""
	if noSync {
		option = "--no-sync"
	}
	j, err := configJob(cmd, d, &send, &out, &dev, option)
	if err != nil {
		return err
	}
	for _, note := range d.Notes {
		j.note(textError(note))
	}
	return j.run(cmd.Context())
}

// textError is a sentence as an error.
type textError string

func (e textError) Error() string { return string(e) }
